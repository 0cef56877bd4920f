"""The official files of a benchmark, fetched through torchvision: whole, with the listed checksums, or not at all."""

import hashlib
import socket
from http.client import HTTPException
from pathlib import Path
from tempfile import TemporaryDirectory

from medistill.data.cifar import Layout, checksums
from medistill.errors import UserError

PATIENCE = 60  # seconds without a byte after which a server counts as gone; torchvision would wait for ever


def fetch(place: Path, layout: Layout) -> None:
    """Put the official folder of a CIFAR set at `place`, or in it where it has another name.

    What lies there already is never touched. torchvision's data sets would unpickle what they fetched, so only their
    archive and its checksums are taken.

    Raises:
        UserError: no network, another content than the official one, a full disk; nothing is left behind.
    """
    import torchvision.datasets
    from torchvision.datasets.utils import download_and_extract_archive

    folder = place if place.name == layout.folder else place / layout.folder
    if folder.exists() and (missing := [name for name in checksums(layout) if not (folder / name).is_file()]):
        raise UserError(
            f"{folder.name}: no {', '.join(missing)} in it; move it away, and data.download fetches all of it, or set "
            "data.download to false"
        )
    if folder.exists() or place.is_file() or (place / layout.meta).exists():
        return
    published = getattr(torchvision.datasets, layout.torchvision)
    patience = socket.getdefaulttimeout()
    socket.setdefaulttimeout(PATIENCE)
    try:
        existing = next(parent for parent in folder.parents if parent.is_dir())
        with TemporaryDirectory(dir=existing, prefix=".download-") as temporary:
            download_and_extract_archive(
                published.url, temporary, filename=published.filename, md5=published.tgz_md5, remove_finished=True
            )
            fetched = Path(temporary) / layout.folder
            for name, md5 in checksums(layout).items():
                if hashlib.md5((fetched / name).read_bytes(), usedforsecurity=False).hexdigest() != md5:
                    raise RuntimeError(f"{name} has another checksum than the official one")
            folder.parent.mkdir(parents=True, exist_ok=True)
            fetched.rename(folder)
    except (OSError, HTTPException, RuntimeError, ValueError) as error:
        told = " ".join(str(error).split()) or type(error).__name__
        raise UserError(
            f"data.download: {layout.title} could not be fetched ({told}), and nothing was left behind; try again "
            f"with a network, or put the unpacked folder {layout.folder} there yourself"
        ) from error
    finally:
        socket.setdefaulttimeout(patience)
