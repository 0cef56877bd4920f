"""What all stages share: device, memory errors, keys and marks of completeness."""

import pytest
import torch

from medistill.config import Config
from medistill.errors import UserError
from medistill.files import sha256
from medistill.parallel import Group
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


def second_of_two(tmp_path, **settings):
    said = []
    return Session(Config(run=str(tmp_path), **settings), said.append, Group(1, 2, 1, 2)), said


def test_the_first_process_alone_speaks_and_records(tmp_path, capsys):
    second, said = second_of_two(tmp_path, threads=2)
    second.say("anything")
    with second.bar(10, "distill", "it") as bar:
        bar.update(10)
    assert said == [] and capsys.readouterr() == ("", "")
    assert second.tracker is None
    second.lead(lambda session: pytest.fail("this is the first process's work"))
    first = Session(Config(run=str(tmp_path), threads=2, track=False), said.append, Group(0, 2, 0, 2))
    led = []
    first.lead(led.append)
    assert said == ["2 processes, 2 threads each"] and led[0].group.size == 1 and led[0].config is first.config


def test_processes_share_the_cores(tmp_path, monkeypatch):
    monkeypatch.setattr("medistill.stages.session._cores", lambda: 6)
    second_of_two(tmp_path)
    assert torch.get_num_threads() == 3
    monkeypatch.setattr("medistill.stages.session._cores", lambda: 1)
    second_of_two(tmp_path)
    assert torch.get_num_threads() == 1


def test_more_processes_than_gpus_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(UserError, match="2 processes were started on a machine with 1 GPU; start at most one a GPU"):
        second_of_two(tmp_path)
    assert second_of_two(tmp_path, device="cpu")[0].device == torch.device("cpu")


def test_a_folder_that_is_not_shared_is_one_sentence(tmp_path):
    second, _ = second_of_two(tmp_path)
    with pytest.raises(UserError, match="not visible to every process of this run; name a folder that all machines"):
        second.require_shared(second.work("data", {}))
