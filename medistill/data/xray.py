"""MONAI's view of the one door for films: an ImageReader over `read_film`."""

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from monai.data import ImageReader
from numpy.typing import NDArray

from medistill.data.film import MODALITIES, VIEWS, read_film

Name = str | PathLike[str]


class FilmReader(ImageReader):
    """Films as MONAI images (rows, cols) float32 in [0, 1], row-major.

    MONAI's own readers lay a film on its side, and whether they invert MONOCHROME1 depends on which is
    installed. `LoadImage` turns to them when `read` fails, so `read` only takes the path, and a film is
    refused in `get_data`.
    """

    def __init__(self, *, modalities: Sequence[str] = MODALITIES, views: Sequence[str] = VIEWS) -> None:
        self.modalities = tuple(modalities)
        self.views = tuple(views)

    def verify_suffix(self, filename: Name | Sequence[Name]) -> bool:
        """True: a film is known by its content."""
        return True

    def read(self, data: Name | Sequence[Name], **kwargs: Any) -> Path:
        """The path of the one film to read."""
        return Path(data if isinstance(data, str | PathLike) else data[0])

    def get_data(self, img: Path) -> tuple[NDArray[Any], dict[str, Any]]:
        """The film's pixels (rows, cols), and its `choices` and `sha256` as metadata.

        Raises:
            FilmError: the file is no film that can be used.
        """
        film = read_film(img, modalities=self.modalities, views=self.views)
        meta = {"original_channel_dim": "no_channel", "choices": film.choices, "sha256": film.digest}
        return film.pixels, meta
