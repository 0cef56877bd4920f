"""The private key of a run, and the signature of a release that was written before the key was given."""

from pathlib import Path
from typing import Any

import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from medistill.config import Config
from medistill.distill.distilled import Distilled
from medistill.errors import ReleaseError
from medistill.release.keys import read_private_key
from medistill.release.signature import write_signature
from medistill.release.verify import Verified


def signing_key(config: Config) -> Ed25519PrivateKey | None:
    """The key that signs the release, None where none is given; read before the work, so that a mistake costs none."""
    return read_private_key(Path(config.release.key)) if config.release.key else None


def sign_written(written: Verified, key: Ed25519PrivateKey, final: Distilled, decision: dict[str, Any]) -> None:
    """Sign a verified release if it is this run's: a folder somebody altered here, sums and all, gets no signature.

    Raises:
        ReleaseError: its images, labels or decision are not the run's.
        UserError: it bears another key's signature.
    """
    found = written.distilled
    same = torch.equal(found.images, final.images.cpu()) and torch.equal(found.labels, final.labels.cpu())
    if not same or found.lr != final.lr or written.audit["decision"] != decision:
        raise ReleaseError(
            f"{written.folder.name}: its images, labels or decision are not those of this run, so it is not signed; "
            "move the folder away and release again"
        )
    write_signature(written.folder, key)
