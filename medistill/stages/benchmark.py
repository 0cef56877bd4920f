"""Public benchmarks: the official files and split, each image its own person."""

import hashlib
from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from medistill.data.adapters import ADAPTERS
from medistill.data.benchmark import with_validation
from medistill.errors import UserError
from medistill.files import digest_of
from medistill.stages.session import Session
from medistill.stages.source import Examined, find, require_positive


@dataclass
class PublicSet:
    """The benchmark that `data.adapter` reads from what `data.cohort` names."""

    session: Session

    @cached_property
    def files(self) -> list[Path]:
        """The files that hold it."""
        data = self.session.config.data
        return ADAPTERS[data.adapter].files(find(data))

    def fingerprint(self) -> str:
        """A digest that changes when one of the files does."""
        stats = [(path.name, path.stat()) for path in self.files]
        return digest_of([(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats])

    def examine(self) -> Examined:
        """Read the files; the official split is kept, and validation drawn from train where there is none.

        Raises:
            UserError: damaged or other files, other classes, or images of another side than `data.size`.
        """
        import pandas as pd

        data = self.session.config.data
        content = ADAPTERS[data.adapter].read(self.files, data.classes)
        require_positive(data, content.classes)
        if (side := content.images.shape[2]) != data.size:
            raise UserError(
                f"data.size is {data.size}, but the images are {side} pixels a side; set data.size to {side}"
            )
        split = with_validation(content, data.val_fraction, self.session.config.seed)
        labels = [content.classes[label] for label in content.labels]
        copies = _copies(content.images, split)
        return Examined(
            images=torch.from_numpy(content.images).float().div_(255),
            labels=torch.from_numpy(content.labels),
            groups=torch.arange(len(labels)),
            split=split,
            classes=content.classes,
            mean=content.mean,
            std=content.std,
            names=list(content.names),
            table=pd.DataFrame({"path": content.names, "label": labels, "split": split}),
            unit="images",
            notes=[*content.notes, *copies],
            left_out=[],
        )


def _copies(images: NDArray[np.uint8], split: NDArray[np.str_]) -> list[str]:
    """A note when one image stands in two splits; a benchmark's split is official and stays as it is."""
    where = defaultdict(set)
    for image, name in zip(images, split.tolist(), strict=True):
        where[hashlib.sha256(image.tobytes()).digest()].add(name)
    twice = sum(len(names) > 1 for names in where.values())
    if not twice:
        return []
    return [f"{twice} images stand in more than one split, pixel for pixel; the official split is kept as it is"]
