"""The exceptions whose text is meant for the user."""

from typing import ClassVar


class UserError(Exception):
    """A mistake the user can mend; the command line prints the text as one line and exits with `code`.

    The text names the file or option, what was found, and what to do.
    """

    code: ClassVar[int] = 2


class ReleaseError(UserError):
    """A release that is not what it claims to be: a file changed, missing or added, or another's signature."""

    code: ClassVar[int] = 1
