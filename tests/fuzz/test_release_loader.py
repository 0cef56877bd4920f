"""The door for releases: a folder is a release, unchanged and within its contract, or a sentence says why not."""

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from random import Random

import torch
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from fuzz.explore import explore
from fuzz.law import sentence
from fuzz.releases import SIGNATURE, SUMS, change_json, mutant, read, sums, toys
from fuzz.watchdog import Files, Watchdog
from hypothesis import strategies as st

from medistill.config.net import misfit
from medistill.errors import UserError
from medistill.release.load import ReleasedSet, load
from medistill.seeds import derive

DOOR = "release_loader"


def judge(folder: Path) -> str:
    """Load the release."""
    try:
        found = load(folder)
    except UserError as error:
        sentence(str(error).replace(str(folder), "release"), r"[^:]+: ", 800)
        return "refused"
    files = read(folder)
    assert sorted(files[SUMS].splitlines()) == sorted(sums(files).splitlines()), "loaded, though its sums differ"
    if SIGNATURE in files:
        require_signed(json.loads(files[SIGNATURE]), files[SUMS])
    require_contract(found)
    assert found.digest == hashlib.sha256(files[SUMS]).hexdigest()
    return "returned"


def require_signed(signature: dict[str, str], text: bytes) -> None:
    """The signature is over the very sums, by the key that stands beside it (RFC 8032, by another path)."""
    assert signature["signed"].encode() == text, "loaded, though the signature is of another text"
    key = load_pem_public_key(signature["public_key"].encode())
    key.verify(base64.b64decode(signature["signature"]), b"medistill release 1\n" + text)  # type: ignore[union-attr, call-arg]


def require_contract(found: ReleasedSet) -> None:
    """What `ReleasedSet` promises, whatever it was read from."""
    images, labels, net = found.images, found.labels, found.architecture
    assert images.dtype == labels.dtype == torch.float32 and len(found) == len(images) == len(labels) > 0
    assert (
        images.shape[1:] == (net.channels, net.size, net.size) and labels.shape[1] == len(found.classes) == net.classes
    )
    assert bool(images.isfinite().all()) and bool((labels >= 0).all()), "values that are not finite, or negative labels"
    assert bool(((labels.sum(1) - 1).abs() < 2e-3).all()), "labels are no distributions"
    assert misfit(net.name, net.size, net.width, net.depth) is None and net.channels <= 4
    assert len(set(found.classes)) == len(found.classes) and all(name.isprintable() for name in found.classes)
    assert 0 < found.lr < float("inf") and len(found.mean) == len(found.std) == net.channels
    assert all(0 < rate < float("inf") for _, rate in found.sequence)
    assert bool(found.pictures().isfinite().all()), "pictures that are not finite"
    ends = torch.stack([torch.zeros(images.shape[1:]), torch.ones(images.shape[1:])])
    assert bool(found.normalise(ends).isfinite().all()), f"films that are not finite, by {found.mean}, {found.std}"
    for name in ("provenance", "evaluation", "audit", "config"):
        value = getattr(found, name)
        assert isinstance(value, dict), name
        json.dumps(value, allow_nan=False)
    assert re.fullmatch("[0-9a-f]{64}", found.digest)


def mutants(seed: int, cases: int) -> Iterator[Files]:
    """The releases themselves, then mutants of them."""
    originals = toys()
    for index in range(cases):
        files = originals[index % 2]
        yield mutant(files, Random(derive(seed, DOOR, index))) if index > 1 else files


@st.composite
def rewritten(draw: st.DrawFn, original: Files) -> Files:
    """A release some of whose JSON was written anew, with honest sums: nothing but its contents can refuse it."""
    files = dict(original)
    for name in draw(
        st.lists(st.sampled_from(["audit.json", "evaluation.json", "metadata.json"]), min_size=1, max_size=2)
    ):
        files[name] = change_json(files[name], Random(draw(st.integers(0, 2**32))))
    for name, text in draw(st.dictionaries(st.sampled_from(["config.yaml", "README.md"]), YAMLS, max_size=1)).items():
        files[name] = text.encode("utf-8", "surrogatepass")
    files[SUMS] = sums(files)
    return files


YAMLS = st.one_of(
    st.text(st.sampled_from("ab:-,[]{}#&*!|>'\"%@` \n\t?~01.\\"), max_size=60),
    st.sampled_from(["a: &a [*a]", "[" * 20000, "a: !!python/name:os.system", "---\n" * 3, "a: " * 9999]),
    st.dictionaries(st.text(max_size=8), st.recursive(st.none() | st.floats() | st.text(), st.lists)).map(str),
)  # fmt: skip


def test_mutants_of_releases(cases: int, seed: int) -> None:
    with Watchdog(DOOR, seed, judge) as watchdog:
        watchdog.check_all(mutants(seed, cases - cases // 3))


def test_rewritten_releases(cases: int, seed: int) -> None:
    with Watchdog(DOOR, seed, judge) as watchdog:
        explore(watchdog, rewritten(toys()[0]), cases // 3)


def test_again(again: Files, seed: int) -> None:
    """The one case that MEDISTILL_FUZZ_AGAIN names."""
    with Watchdog(DOOR, seed, judge) as watchdog:
        watchdog.check_all(iter([again]))
