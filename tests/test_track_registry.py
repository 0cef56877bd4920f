"""The registry on SQLite: which version the alias stands on, and that files alone are kept."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from medistill.track import Origin, Tracker, open_tracker
from medistill.track.registry import LEAKED


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("registry")


@pytest.fixture
def tracker(place: Path, request: pytest.FixtureRequest) -> Tracker:
    """A store that the tests share, and an experiment of each test's own."""
    return open_tracker(request.node.name, f"sqlite:///{place / 'mlflow.db'}")


def sha(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def released(folder: Path, name: str, images: str, verdict: str, **decision: Any) -> Path:
    """A release of these images with this verdict and decision."""
    place = folder / name
    place.mkdir()
    (place / "distilled.safetensors").write_text(images)
    whole = {"verdict": verdict, "failed": [], "override": None, "accepted": None} | decision
    (place / "audit.json").write_text(json.dumps({"verdict": verdict, "decision": whole, "note": name}))
    names = ("audit.json", "distilled.safetensors")
    (place / "SHA256SUMS").write_text("".join(f"{sha(place / one)}  {one}\n" for one in names))
    return place


def trained(tracker: Tracker, folder: Path, seed: int) -> tuple[str, Path]:
    """A run and the model that it trained."""
    model = folder / f"model-{seed}"
    model.mkdir(exist_ok=True)
    (model / "model.safetensors").write_text(f"weights {seed}")
    (model / "model.json").write_text("{}")
    (model / "metrics.json").write_text("{}")
    parent = tracker.parent("train", "train", {})
    with tracker.stage(parent, "train", f"key-{seed}", {}, {}) as run:
        pass
    return run.run_id, model


def holder(tracker: Tracker, name: str = "toy") -> str | None:
    """The version that the alias stands on."""
    aliases = tracker.client.get_registered_model(name).aliases
    return str(aliases["released"]) if "released" in aliases else None


def register(
    tracker: Tracker,
    folder: Path,
    seed: int,
    release: Path,
    name: str,
    parts: Sequence[Path] = (),
    bad: Path | None = None,
) -> Any:
    """Register a model of a release that was merged from some, one of which may be told to have failed."""
    run_id, model = trained(tracker, folder, seed)
    audit = json.loads((release / "audit.json").read_text())
    known = frozenset(digest for part in parts for digest in digests(part))
    failed = frozenset(digests(bad) if bad else ())
    return tracker.register(run_id, name, model, Origin(*digests(release), audit, known, failed))


def digests(release: Path) -> tuple[str, str]:
    return sha(release / "SHA256SUMS"), sha(release / "distilled.safetensors")


def test_the_alias_is_for_a_pass_alone_and_moves_to_the_newest(tracker: Tracker, tmp_path: Path) -> None:
    word = {"name": "Dr. A", "reason": "phantoms"}
    signed = {"accepted": word, "failed": []}
    cases = [
        (released(tmp_path, "a", "one", "inconclusive", **signed), "verdict inconclusive; accepted by Dr. A", None),
        (released(tmp_path, "b", "two", "pass"), "", "2"),
        (released(tmp_path, "c", "three", "fail", failed=["text"], override=word), "failed: text; overridden by", "2"),
        (released(tmp_path, "d", "four", "pass"), "", "4"),
        (released(tmp_path, "e", "five", "inconclusive", override=word), "verdict inconclusive; overridden by", "4"),
    ]
    for seed, (release, why, expected) in enumerate(cases):
        made = register(tracker, tmp_path, seed, release, "toy")
        assert made.version == str(seed + 1) and made.released == (not why)
        assert made.why.startswith(why) and (made.why == "") == (why == "")
        assert holder(tracker) == expected
    version = tracker.client.get_model_version("toy", "3")
    assert version.tags["medistill.release"] == sha(cases[2][0] / "SHA256SUMS")
    assert version.tags["verdict"] == "fail" and version.tags["withheld"] == "failed: text; overridden by Dr. A"


def test_what_is_kept_is_the_plain_files(tracker: Tracker, tmp_path: Path) -> None:
    from mlflow.artifacts import download_artifacts

    made = register(tracker, tmp_path, 7, released(tmp_path, "a", "plain", "pass"), "plain/files: of 'ours'")
    assert made.name == "plain_files_ of _ours_"
    version = tracker.client.get_model_version_by_alias(made.name, "released").version
    uri = tracker.client.get_model_version_download_uri(made.name, version)
    found = Path(download_artifacts(uri, tracking_uri=tracker.uri))
    assert {path.name: path.read_text() for path in found.iterdir()} == {
        "model.safetensors": "weights 7",
        "model.json": "{}",
    }


def test_the_same_model_is_registered_once(tracker: Tracker, tmp_path: Path) -> None:
    release = released(tmp_path, "a", "once", "pass")
    versions = [register(tracker, tmp_path, seed, release, "once").version for seed in (1, 1, 2, 1)]
    assert versions == ["1", "1", "2", "1"] and holder(tracker, "once") == "2"
    again = register(tracker, tmp_path, 1, release, "once")
    assert not again.released and again.why == "a newer version has it"


def test_a_leak_found_in_the_same_set_takes_the_alias_away(tracker: Tracker, tmp_path: Path) -> None:
    """Another audit of the set, under a later release of it or in a run of this store."""
    register(tracker, tmp_path, 1, released(tmp_path, "a", "other", "pass"), "leak")
    register(tracker, tmp_path, 2, released(tmp_path, "b", "same", "pass"), "leak")
    assert holder(tracker, "leak") == "2"
    word = {"name": "Dr. A", "reason": "a drill"}
    failing = released(tmp_path, "c", "same", "pass", failed=["text (audit-0a1b2c3d)"], override=word)
    made = register(tracker, tmp_path, 3, failing, "leak")
    assert not made.released and holder(tracker, "leak") == "1"
    again = register(tracker, tmp_path, 2, tmp_path / "b", "leak")
    assert (again.version, again.released, again.why) == ("2", False, LEAKED)

    (only,) = [
        version for version in tracker.client.search_model_versions("name = 'leak'") if str(version.version) == "1"
    ]
    parent = tracker.parent("study", "study", {})
    with tracker.stage(parent, "release", "k-r", {}, {"distilled": "d-1"}) as run:
        run.tag("medistill.release", only.tags["medistill.release"])
    tracker.settle()
    assert holder(tracker, "leak") == "1"
    with tracker.stage(parent, "audit", "k-a", {}, {"distilled": "d-1"}) as run:
        run.tag("verdict", "fail")
    tracker.settle()
    assert holder(tracker, "leak") is None


def test_a_failing_set_is_known_under_every_name(tracker: Tracker, tmp_path: Path) -> None:
    first = register(tracker, tmp_path, 1, released(tmp_path, "a", "one set", "pass"), "north")
    assert first.released
    register(tracker, tmp_path, 2, released(tmp_path, "b", "one set", "fail"), "another name")
    assert holder(tracker, "north") is None and holder(tracker, "another name") is None
    third = register(tracker, tmp_path, 3, tmp_path / "a", "a third")
    assert (third.released, third.why) == (False, LEAKED)


def test_a_merged_set_falls_with_a_part_of_it(tracker: Tracker, tmp_path: Path) -> None:
    """Whether the part fails under its own name, in an audit of this house, or as the merged release itself tells."""
    parts = [released(tmp_path, name, f"images of {name}", "pass") for name in ("east", "west", "sound")]
    merged = released(tmp_path, "both", "east and west", "pass")
    sound = released(tmp_path, "sounds", "west and sound", "pass")
    assert register(tracker, tmp_path, 1, merged, "both", parts[:2]).released
    assert register(tracker, tmp_path, 2, sound, "sounds", parts[1:]).released
    failing = released(tmp_path, "east, failed", "images of east", "fail")
    register(tracker, tmp_path, 3, failing, "east")
    assert holder(tracker, "both") is None and holder(tracker, "sounds") == "1"
    again = register(tracker, tmp_path, 4, merged, "both", parts[:2])
    assert (again.version, again.released, again.why) == ("2", False, LEAKED)

    parent = tracker.parent("study", "study", {})
    with tracker.stage(parent, "audit", "k-a", {}, {"set": digests(parts[2])[1]}) as run:
        run.tag("verdict", "fail")
    tracker.settle()
    assert holder(tracker, "sounds") is None

    assert register(tracker, tmp_path, 5, parts[1], "west").released
    worst = released(tmp_path, "worst", "all", "fail", failed=["west: text"])
    register(tracker, tmp_path, 6, worst, "worst", parts, bad=parts[0])
    assert holder(tracker, "west") == "1", "a part of what failed need not have failed itself"
    register(tracker, tmp_path, 7, worst, "worst", parts, bad=parts[1])
    assert holder(tracker, "west") is None


def test_an_alias_that_others_set_is_left_alone(tracker: Tracker, tmp_path: Path) -> None:
    tracker.client.create_registered_model("strangers")
    tracker.client.create_model_version("strangers", str(tmp_path))
    tracker.client.set_registered_model_alias("strangers", "released", "1")
    tracker.settle()
    assert holder(tracker, "strangers") == "1"
