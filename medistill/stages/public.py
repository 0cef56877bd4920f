"""What the public side of a run knows of the data without opening them: constants that tell nothing of a patient."""

from dataclasses import asdict, dataclass
from pathlib import Path

from torch import Tensor

from medistill.data.imageset import ImageSet, normalise
from medistill.data.zca import Zca
from medistill.files import read_json, write_json


@dataclass(frozen=True)
class Constants:
    """Names and normalisation of a data set.

    Attributes:
        name: the data set's name.
        classes: the class names, in the order of the labels.
        shape: of an image, (C, S, S).
        mean: one constant a channel.
        std: one constant a channel.
        zca: whitening, which is a statistic of the films: None in DP mode.
    """

    name: str
    classes: tuple[str, ...]
    shape: tuple[int, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    zca: Zca | None = None

    @classmethod
    def of(cls, images: ImageSet) -> "Constants":
        """The constants of an image set."""
        shape = tuple(images.images.shape[1:])
        return cls(images.name, images.classes, shape, images.mean, images.std, images.zca)

    def as_seen(self, images: Tensor) -> Tensor:
        """Images (N, C, S, S) in [0, 1] as the networks see them."""
        return normalise(images, self.mean, self.std, self.zca)

    def save(self, path: Path) -> None:
        """Write them for a process that must not open the data; there is no whitening in DP mode."""
        write_json(path, {name: value for name, value in asdict(self).items() if name != "zca"})

    @classmethod
    def load(cls, path: Path) -> "Constants":
        """Read what `save` wrote."""
        record = read_json(path)
        classes, shape, mean, std = (tuple(record[name]) for name in ("classes", "shape", "mean", "std"))
        return cls(record["name"], classes, shape, mean, std)
