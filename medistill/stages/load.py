"""LOAD and check: data become three image sets on disk, or a list of everything that is wrong with them."""

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch

from medistill.config import Data
from medistill.data.imageset import ImageSet
from medistill.data.setfile import write_set
from medistill.data.zca import Zca
from medistill.files import write_text
from medistill.stages.films import LEFT_OUT, Films
from medistill.stages.session import Session, Work
from medistill.stages.source import Examined, Source, require_positive

SPLITS = ("train", "val", "test")
TABLE, WHITENING, MARK = "cohort.csv", "zca.safetensors", "fingerprint.txt"


@dataclass(frozen=True)
class Splits:
    """The three image sets, memory-mapped, and how many files of the cohort could not be used."""

    train: ImageSet
    val: ImageSet
    test: ImageSet
    left_out: int

    @property
    def digests(self) -> dict[str, str]:
        """The digest of each."""
        return {name: getattr(self, name).digest for name in SPLITS}


def source(session: Session) -> Source:
    """The data of the config, not yet read."""
    if session.config.data.adapter == "films":
        return Films(session)
    from medistill.stages.benchmark import PublicSet

    return PublicSet(session)


def check(session: Session) -> None:
    """`medistill check`: read everything and tell what was found; films that were read are kept for a run to come."""
    if session.config.data.cohort == "phantom":
        session.say("check: the embedded phantom films; name a config (--config) or data.cohort for films of your own")
    examined = source(session).examine()
    for note in examined.left_out + examined.notes + _look_alikes(session, examined):
        session.say(f"note: {note}")
    for name in SPLITS:
        here = torch.from_numpy(examined.split == name)
        counts = torch.bincount(examined.labels[here], minlength=len(examined.classes)).tolist()
        shown = ", ".join(f"{label} {count}" for label, count in zip(examined.classes, counts, strict=True))
        patients = f" of {len(examined.groups[here].unique())} patients" if examined.unit == "films" else ""
        session.say(f"{name}: {sum(counts)} {examined.unit}{patients} ({shown})")
    session.say("check: the cohort is ready")


def _look_alikes(session: Session, examined: Examined) -> list[str]:
    """A sentence for each pair of images in different splits that may be one patient; it names files."""
    from medistill.data.duplicates import near_duplicates

    threshold = session.config.data.near_duplicate
    if threshold == 1:
        return []
    names, split = examined.names, examined.split.tolist()
    folder = session.folder if session.folder.is_dir() else None
    with session.bar(len(names), f"comparing {examined.unit}", examined.unit.rstrip("s")) as bar:
        found = near_duplicates(
            examined.images, split, threshold=threshold, hashes=examined.hashes, scratch=folder, progress=bar.update
        )
    advice = "; if they are one patient, give both one patient_id" if examined.unit == "films" else ""
    more = [f"up to {found.more} more pairs look alike; these are the most alike"] if found.more else []
    return more + [
        f"{names[pair.first]} ({split[pair.first]}) and {names[pair.second]} ({split[pair.second]}) look alike "
        f"(correlation {pair.correlation:.3f}){advice}"
        for pair in found.pairs
    ]


def load(session: Session) -> Splits:
    """The image sets of the run; they are made anew only when the data or their settings changed."""
    session.lead(_make)
    data = session.config.data
    work = session.work("data", _decides(data, session.config.seed))
    session.require_shared(work)
    zca = Zca.load(work.folder / WHITENING) if data.zca else None
    train, val, test = (
        replace(
            ImageSet.load(work.folder / f"{name}.safetensors"),
            name=data.name,
            citation=data.citation,
            licence=data.licence,
            zca=zca,
        )
        for name in SPLITS
    )
    require_positive(data, train.classes)
    return Splits(train, val, test, len((work.folder / LEFT_OUT).read_text().splitlines()))


def _make(session: Session) -> None:
    """Write the image sets, unless they are there and of these very data."""
    data = session.config.data
    found = source(session)
    work = session.work("data", _decides(data, session.config.seed))
    seen = found.fingerprint()
    mark = work.folder / MARK
    if not (work.done and mark.exists() and mark.read_text() == seen):
        with session.stage(work, {"data": asdict(data), "seed": session.config.seed}, {}) as run:
            examined = found.examine()
            sets = _write(work, examined, data)
            if run:
                for images in sets:
                    run.input(data.name, images.digest, images.split, {examined.unit: len(images)})
                run.metrics(0, {f"films/{images.split}": len(images) for images in sets})
                run.metrics(0, {"films/left_out": len(examined.left_out)})
        whitening = [WHITENING] if data.zca else []
        work.finish({}, [*(f"{name}.safetensors" for name in SPLITS), TABLE, LEFT_OUT, *whitening])
        write_text(mark, seen)
        for note in examined.notes:
            session.say(f"note: {note}")
        session.say(f"load: {len(examined.names)} {examined.unit} -> {work.folder}")


def cohort_table(session: Session) -> Any:
    """The table (pandas) of a run that was loaded: labels, split and, of films, the reader's choices."""
    import pandas as pd

    work = session.work("data", _decides(session.config.data, session.config.seed))
    return pd.read_csv(work.folder / TABLE, dtype=str, keep_default_na=False)


def _decides(data: Data, seed: int) -> dict[str, Any]:
    """The settings that decide the images and their split; name, citation, licence and download do not."""
    settings = asdict(data)
    for name in ("workers", "near_duplicate", "name", "citation", "licence", "positive", "download"):
        del settings[name]
    return {"data": settings, "seed": seed}


def _write(work: Work, examined: Examined, data: Data) -> list[ImageSet]:
    """Write the three sets, their whitening and the table; without the marks of completeness they do not count.

    Whitening takes the place of the normalisation: eps belongs to images in [0, 1], as in MTT.
    """
    (work.folder / MARK).unlink(missing_ok=True)
    channels = examined.images.shape[1]
    mean, std = ((0.0,) * channels, (1.0,) * channels) if data.zca else (examined.mean, examined.std)
    told = {"classes": examined.classes, "name": data.name, "mean": mean, "std": std}
    told |= {"citation": data.citation, "licence": data.licence}
    sets = []
    for name in SPLITS:
        index, path = torch.from_numpy(np.flatnonzero(examined.split == name)), work.folder / f"{name}.safetensors"
        write_set(path, examined.images, index, examined.labels, examined.groups, told | {"split": name})
        sets.append(ImageSet.load(path))
    if data.zca:
        whitening = Zca.fit(sets[0].images)  # their mean is 0 and std 1: the networks see them as they are
        whitening.save(work.folder / WHITENING)
        sets = [replace(images, zca=whitening) for images in sets]
    write_text(work.folder / LEFT_OUT, "".join(f"{line}\n" for line in examined.left_out))
    write_text(work.folder / TABLE, examined.table.to_csv(index=False, lineterminator="\n"))
    return sets
