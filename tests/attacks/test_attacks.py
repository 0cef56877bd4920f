"""Every attack of this folder is refused with one sentence, exit code 1, no hang and no memory worth the name."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from attacks import descriptions, more, pixels, places, shapes, signatures, words
from attacks.builders import OWNER, Attack

from medistill.cli import main
from medistill.release.bundle import write_release
from medistill.release.keys import public_pem
from medistill.release.signature import write_signature

ROOMS = {
    "pixels": pixels,
    "more": more,
    "descriptions": descriptions,
    "words": words,
    "places": places,
    "shapes": shapes,
    "signatures": signatures,
}
EVERY = [(f"{room}: {attack.name}", attack) for room, of in ROOMS.items() for attack in of.ATTACKS]
ATTACKS = [pytest.param(attack, id=name) for name, attack in EVERY if not attack.bomb]
BOMBS = [attack for _, attack in EVERY if attack.bomb]

SECONDS, GROWTH = 2, 200 << 20

MEASURE = """
import json, sys, time
from pathlib import Path
import pydicom, torch
import medistill.release.dicom
from medistill.errors import ReleaseError
from medistill.release.verify import verify

def memory(name):
    status = Path("/proc/self/status").read_text()
    return 1024 * next(int(line.split()[1]) for line in status.splitlines() if line.startswith(name))

verify(Path(sys.argv[1]))  # what is imported late is paid for here
told = []
for folder in sys.argv[2:]:
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew (man 5 proc)
    before, start = memory("VmRSS"), time.process_time()
    try:
        verify(Path(folder))
        told.append([None, 0, 0])
    except ReleaseError as error:
        told.append([str(error), time.process_time() - start, memory("VmHWM") - before])
print(json.dumps(told))
"""


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A signed release whose audit is inconclusive and was accepted, and the owner's public key beside it."""
    from release.conftest import toy_parts

    place = tmp_path_factory.mktemp("original")
    parts = toy_parts()
    parts["audit"]["checks"].append(
        parts["audit"]["checks"][0] | {"name": "text", "verdict": "inconclusive", "explanation": "No film had text."}
    )
    parts["audit"]["verdict"] = "inconclusive"
    write_release(place / "release", **parts, accept="Dr. A. Example: phantom films only")
    write_signature(place / "release", OWNER)
    (place / "owner.pub").write_text(public_pem(OWNER.public_key()))
    return place


def copy(original: Path, to: Path) -> Path:
    """A copy to attack."""
    return Path(shutil.copytree(original / "release", to / "release"))


def test_the_release_that_is_attacked_is_sound(original: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["verify", str(original / "release"), "--pub", str(original / "owner.pub")])
    assert capsys.readouterr().out.splitlines()[-1] == "verified"


@pytest.mark.parametrize("attack", ATTACKS)
def test_attack_is_refused(
    attack: Attack, original: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    folder = copy(original, tmp_path)
    attack.build(folder)
    key = [f"--pub={original / 'owner.pub'}"] if attack.keyed else []
    recwarn.clear()
    with pytest.raises(SystemExit) as stopped:
        main(["verify", str(folder), *key])
    told = capsys.readouterr()
    assert stopped.value.code == 1 and told.out == ""
    assert told.err.startswith("medistill: ") and told.err.endswith("\n")
    sentence = told.err.removeprefix("medistill: ").removesuffix("\n")
    assert re.match(attack.says, sentence), sentence
    assert sentence.isprintable() and len(sentence) < 1000 and not recwarn.list


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="memory is measured as Linux tells it")
def test_bombs_take_neither_time_nor_memory(original: Path, tmp_path: Path) -> None:
    folders = []
    for number, attack in enumerate(BOMBS):
        folders.append(copy(original, tmp_path / str(number)))
        attack.build(folders[-1])
    words = [sys.executable, "-c", MEASURE, str(original / "release"), *map(str, folders)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    told: list[tuple[Any, float, int]] = json.loads(done.stdout)
    for attack, (sentence, seconds, growth) in zip(BOMBS, told, strict=True):
        assert sentence and re.match(attack.says, sentence), f"{attack.name}: {sentence}"
        assert seconds < SECONDS, f"{attack.name}: {seconds} s of the processor"
        assert growth < GROWTH, f"{attack.name}: {growth >> 20} MiB"
