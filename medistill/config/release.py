"""Settings of RELEASE."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Release:
    """RELEASE: who answers for a set that the audit does not clear by itself, and who signs it.

    Attributes:
        override: `name: reason` of the person who releases a set although a check failed; stored in the release,
            beside the audit and in MLflow.
        accept: `name: reason` of the person who accepts that checks were inconclusive or not run; stored likewise.
        key: file of the private key that signs the release (`medistill keygen`); empty: it is not signed.
    """

    override: str = ""
    accept: str = ""
    key: str = ""
