"""The one exception whose text is meant for the user."""


class UserError(Exception):
    """A mistake the user can mend; the command line prints the text as one line and exits with code 2.

    The text names the file or option, what was found, and what to do.
    """
