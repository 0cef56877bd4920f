"""What all stages share: device, memory errors, keys and marks of completeness."""

import pytest
import torch

from medistill.config import Config
from medistill.errors import UserError
from medistill.files import sha256
from medistill.stages.session import Session


@pytest.fixture
def session(tmp_path):
    return Session(Config(run=str(tmp_path), track=False))


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
    ],
    ids=["cuda", "python", "cpu"],
)
def test_out_of_memory_is_one_sentence(session, error):
    with (
        pytest.raises(UserError, match=r"out of memory; lower distill.batch"),
        session.stage(session.work("distill", {}), {}, {}),
    ):
        raise error


def test_another_error_stays_what_it_is(session):
    with pytest.raises(RuntimeError, match="a bug"), session.stage(session.work("distill", {}), {}, {}):
        raise RuntimeError("a bug")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_cuda_without_a_gpu_is_one_sentence(tmp_path):
    with pytest.raises(UserError, match="torch finds no GPU here; set device to cpu or auto"):
        _ = Session(Config(run=str(tmp_path), device="cuda")).device
    assert Session(Config(run=str(tmp_path))).device.type == "cpu"


def test_a_stage_is_done_when_its_mark_and_files_are_there(session):
    work = session.work("audit", {"a": 1})
    assert not work.done
    work.folder.mkdir()
    (work.folder / "result.json").write_text("{}")
    assert not work.done
    work.finish({"distilled": "x"}, ["result.json"])
    assert work.done
    assert sha256(work.folder / "result.json") in (work.folder / "done.json").read_text()
    (work.folder / "result.json").unlink()
    assert not work.done


def test_settings_decide_the_place(session):
    first, again, other = (session.work("audit", {"a": a}) for a in (1, 1, 2))
    assert first == again and first.folder != other.folder
    assert session.work("evaluate", {"a": 1}).key != first.key
