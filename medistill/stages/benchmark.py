"""Public benchmarks: the official files and split, each image its own person."""

import hashlib
import os
from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from medistill.data.adapters import ADAPTERS
from medistill.data.benchmark import packed, with_validation
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
        """The files that hold it, fetched first where `data.download` asks for that."""
        return ADAPTERS[self.session.config.data.adapter].files(self._place())

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
        content = ADAPTERS[data.adapter].read(self.files, data.classes, data.size)
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

    def _place(self) -> Path:
        """What `data.cohort` names; what is to be fetched goes to MEDISTILL_DATA, or the current folder without it."""
        data = self.session.config.data
        adapter = ADAPTERS[data.adapter]
        place = Path(os.environ.get("MEDISTILL_DATA", "")) / data.cohort
        try:
            place = find(data)
        except UserError as error:
            if data.download and not adapter.fetch:
                raise UserError(
                    f"data.download: torchvision does not fetch {data.adapter}; get it from {adapter.home}, let "
                    "data.cohort name it, and set data.download to false"
                ) from error
            if not data.download and (archive := packed(place.parent)):
                raise UserError(
                    f"data.cohort: {data.cohort} is not there, and {archive.name} beside it is still packed; unpack it "
                    "if it holds the data, or correct the path"
                ) from error
            if not data.download:
                raise
        if data.download and adapter.fetch:
            adapter.fetch(place)
        return place


def _copies(images: NDArray[np.uint8], split: NDArray[np.str_]) -> list[str]:
    """A note when one image stands in two splits; a benchmark's split is official and stays as it is."""
    where = defaultdict(set)
    for image, name in zip(images, split.tolist(), strict=True):
        where[hashlib.sha256(image.tobytes()).digest()].add(name)
    twice = sum(len(names) > 1 for names in where.values())
    if not twice:
        return []
    return [f"{twice} images stand in more than one split, pixel for pixel; the official split is kept as it is"]
