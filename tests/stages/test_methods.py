"""Every method goes the whole way: distil, evaluate, audit, report and release, by the same code."""

import json

import pytest

from medistill import load
from medistill.cli import configure
from medistill.distill.methods import METHODS
from medistill.files import read_metadata
from medistill.stages.verbs import VERBS

SHORT = {
    "seqmatch": {"iterations": 2, "seqmatch.epochs": 4, "seqmatch.student_steps": 5},
    "dm": {"dm.iterations": 2, "dm.batch": 8},
    "dc": {"dc.networks": 2, "dc.batch": 8},
    "dsa": {"dc.networks": 2, "dc.batch": 8},
    "dwa": {"dwa.teacher_epochs": 1, "dwa.iterations": 2},
    "mgdd": {"mgdd.adapt": 2, "mgdd.batch": 16, "mgdd.maps": 2},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("methods") / "run"


def test_all_methods_are_tried_here_or_elsewhere():
    assert set(SHORT) == set(METHODS) - {"iadd", "mtt"}


@pytest.mark.parametrize("method", SHORT)
def test_a_method_goes_the_whole_way(tiny, folder, method, capsys):
    own = [f"--distill.{name}={value}" for name, value in SHORT[method].items()]
    more = ["--track", "false", "--distill.ipc", "2", "--evaluate.steps", "5"]
    words = tiny.options(folder, *more, "--method", method, *own)
    VERBS["run"](configure("run", words))
    said = capsys.readouterr().out
    released = load(said.split("To share:")[1].split()[0])
    assert released.provenance["method"] == METHODS[method].title
    assert released.provenance["reads"] == METHODS[method].reads
    assert (len(released.images), bool(released.sequence)) == (6, method == "seqmatch")
    page = (folder / said.split("Report:")[1].split()[0]).read_text()
    assert METHODS[method].title in page and "MARKED" not in page
    made = [path.parent for path in folder.glob("distill-*/history.json")]
    titles = {read_metadata(path / "distilled.safetensors")["provenance"]["method"]: path for path in made}
    history = json.loads((titles[METHODS[method].title] / "history.json").read_text())
    assert all(len(column) == released.provenance["iterations"] for column in history.values())
