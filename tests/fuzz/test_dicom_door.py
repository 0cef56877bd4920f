"""The door for films: whatever stands in a file, a film within its contract comes out, or a sentence."""

import json
from collections.abc import Iterator
from pathlib import Path
from random import Random

import numpy as np
import pytest
from fuzz.films import DICOM_MUTATORS, built, every_value
from fuzz.law import sentence
from fuzz.mutate import mutate
from fuzz.watchdog import Files, Watchdog

from medistill.data.decode import decode
from medistill.data.film import FilmError, read_film
from medistill.seeds import derive

DOOR, NAME = "dicom_door", "film.dcm"
ANY = ("CR", "DX", "MR", "CT", "OT", "US", "RF", "XA", "RTDOSE", "")


def judge(folder: Path) -> str:
    """Read the film, accepting every modality of the seeds, so that mutants go far."""
    try:
        film = read_film(folder / NAME, modalities=ANY, views=("PA", "AP", "LL", ""))
    except FilmError as error:
        sentence(str(error), rf"{NAME}: ")
        return "refused"
    pixels = film.pixels
    assert isinstance(pixels, np.ndarray) and pixels.dtype == np.float32, f"pixels are {pixels.dtype}"
    assert pixels.ndim == 2 and pixels.size > 0, f"pixels have the shape {pixels.shape}"
    assert bool(np.isfinite(pixels).all()), "pixels are not finite"
    assert pixels.min() >= 0 and pixels.max() <= 1, f"pixels reach from {pixels.min()} to {pixels.max()}"
    assert json.loads(json.dumps(film.choices, allow_nan=False)) == film.choices, f"choices: {film.choices}"
    for name, value in film.choices.items():
        assert not isinstance(value, str) or (value.isprintable() and len(value) <= 100), f"{name}: {value!r}"
    return "returned"


def judge_in_workers(folder: Path) -> str:
    """A decoder in C that ends its process is one film's error where films are read, in workers."""
    decoded = decode([folder / NAME], 32, modalities=ANY, views=("PA", "AP", "LL", ""), workers=1)
    sentence(decoded.errors[0], rf"{NAME}: the decoder crashed")
    return "refused after a crash"


def mutants(originals: list[bytes], seed: int, cases: int, place: str) -> Iterator[Files]:
    """The originals themselves, then mutants of each in turn."""
    for index in range(cases):
        body = originals[index % len(originals)]
        if index >= len(originals):
            body = mutate(body, Random(derive(seed, DOOR, place, index)), originals, DICOM_MUTATORS)
        yield {NAME: body}


def test_every_value_of_what_decides_what_is_shown(seed: int) -> None:
    with Watchdog(DOOR, seed, judge, judge_in_workers) as watchdog:
        watchdog.check_all({NAME: body} for body in every_value())


def test_films_built_by_code(cases: int, seed: int) -> None:
    with Watchdog(DOOR, seed, judge, judge_in_workers) as watchdog:
        watchdog.check_all(mutants(built(), seed, cases, "built"))


@pytest.mark.realdata
def test_real_films(cases: int, seed: int, real_data: Path) -> None:
    originals = [path.read_bytes() for path in sorted((real_data / "dicom").rglob("*.dcm"))]
    assert len(originals) == 40
    with Watchdog(DOOR, seed, judge, judge_in_workers) as watchdog:
        watchdog.check_all(mutants(originals, seed, cases, "real"))


def test_again(again: Files, seed: int) -> None:
    """The one case that MEDISTILL_FUZZ_AGAIN names."""
    with Watchdog(DOOR, seed, judge, judge_in_workers) as watchdog:
        watchdog.check_all(iter([again]))
