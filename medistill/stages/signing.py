"""The private key of a run, and whether a release that stands there already is the run's own."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from medistill.config import Config
from medistill.distill.distilled import Distilled
from medistill.errors import ReleaseError
from medistill.release.keys import read_private_key
from medistill.release.verify import Verified


def signing_key(config: Config) -> Ed25519PrivateKey | None:
    """The key that signs the release, None where none is given; read before the work, so that a mistake costs none."""
    return read_private_key(Path(config.release.key)) if config.release.key else None


def require_own(written: Verified, final: Distilled, audit: Mapping[str, Any]) -> None:
    """Raise a ReleaseError unless a verified release is this run's.

    A folder of another audit, or one somebody altered here, sums and all, is neither signed nor given out.

    Args:
        written: the release.
        final: the run's set.
        audit: the run's as it leaves, with the decision.
    """
    found = written.distilled
    same = torch.equal(found.images, final.images.cpu()) and torch.equal(found.labels, final.labels.cpu())
    if not same or found.lr != final.lr or written.audit != audit:
        raise ReleaseError(
            f"{written.folder.name}: its images, labels or audit are not those of this run, so it is neither signed "
            "nor taken for this run's release; move the folder away and release again"
        )
