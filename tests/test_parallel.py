"""Two processes do the work of one, with the same result, and leave together when one of them stops."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

from medistill import parallel
from medistill.cli import main
from medistill.errors import UserError

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="finds torchrun's workers in /proc")

SEGMENTS = ("--distill.segments", "2", "--experts.count", "3")
LONG = ("--distill.iterations", "100000", "--track", "false")
LOST = "medistill: another process of this run has stopped; run the same command again, finished work is kept"


def free_port():
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


def torchrun(*words, processes=2, more=()):
    agent = ["-m", "torch.distributed.run", f"--nproc-per-node={processes}"]
    return [sys.executable, *agent, f"--master-port={free_port()}", *more, *map(str, words)]


def medistill(verb, tiny, folder, *options, more=()):
    """The command of a verb for two processes."""
    return torchrun("-m", "--", "medistill", verb, *tiny.options(folder / "run", *SEGMENTS, *options), more=more)


def start(command, folder):
    return subprocess.Popen(
        command,
        cwd=folder,
        start_new_session=True,
        # a test run in the background of a shell would hand down that Ctrl-C is ignored
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process, expect=0):
    """Wait for the end and return what was printed: output, and the lines of medistill's own among the errors."""
    output, errors = process.communicate(timeout=600)
    assert (process.returncode == 0) == (expect == 0), output + errors
    return output, [line for line in errors.splitlines() if line.startswith("medistill: ")]


def only(folder, pattern):
    found = list(folder.glob(pattern))
    assert len(found) == 1, found
    return found[0]


@pytest.fixture(scope="module")
def alone(tiny, tmp_path_factory):
    """A whole run by one process."""
    folder = tmp_path_factory.mktemp("alone")
    main(["run", *tiny.options(folder / "run", *SEGMENTS, "--track", "false")])
    return folder


@pytest.fixture(scope="module")
def together(tiny, tmp_path_factory):
    """The same run by two processes, recorded, and what it printed."""
    folder = tmp_path_factory.mktemp("together")
    return folder, finish(start(medistill("run", tiny, folder), folder))[0]


def begun(alone, folder, *names):
    """A run in which the stages of these names are done."""
    for name in names:
        done = only(alone / "run", name)
        shutil.copytree(done, folder / "run" / done.name)
    return folder


def test_two_processes_end_with_the_files_of_one(alone, together):
    folder, _ = together
    for name in ("expert_0000", "expert_0001", "expert_0002"):
        one, two = (only(f / "run", f"experts-*/{name}.safetensors").read_bytes() for f in (alone, folder))
        assert one == two, name
    one, two = (load_file(only(f / "run", "distill-*/checkpoint.safetensors")) for f in (alone, folder))
    for name, tensor in one.items():
        assert (two[name].double() - tensor.double()).norm() <= 1e-6 * tensor.double().norm(), name
    assert (one["average"] - one["images"]).abs().max() == 0 and one["images_velocity"].abs().max() > 0
    one, two = (json.loads(only(f / "run", "evaluate-*/evaluation.json").read_text()) for f in (alone, folder))
    assert one == two


def test_one_process_speaks_and_records(together):
    from mlflow import MlflowClient

    folder, printed = together
    assert printed.count("experts: 3 trained, 3 in all") == 1 and printed.count("To share:") == 1
    client = MlflowClient(tracking_uri=f"sqlite:///{folder / 'mlflow.db'}")
    runs = client.search_runs([client.get_experiment_by_name("tiny").experiment_id])
    stages = {run.data.tags.get("medistill.stage"): run for run in runs}
    assert len(runs) == len(stages) == 8 and all(run.info.status == "FINISHED" for run in runs)
    losses = {key: value for key, value in stages["experts"].data.metrics.items() if key.startswith("loss/")}
    assert sorted(losses) == [f"loss/expert_{index:03d}" for index in range(3)]
    assert all(0 < loss < 2 for loss in losses.values()), "the losses of the other process's expert too"


def test_killed_in_the_middle_all_leave_and_the_same_command_ends_the_same(alone, tiny, tmp_path):
    begun(alone, tmp_path, "data-*", "experts-*")
    command = medistill("distill", tiny, tmp_path, "--track", "false")
    process = start(command, tmp_path)
    kill_worker(process, tmp_path, "distill-*/checkpoint.safetensors")
    assert finish(process, expect=1)[1] == [LOST]
    assert not list(tmp_path.glob("run/distill-*/distilled.safetensors"))
    assert "going on from iteration" in finish(start(command, tmp_path))[0]
    one, two = (only(f / "run", "distill-*/distilled.safetensors").read_bytes() for f in (alone, tmp_path))
    assert one == two


def kill_worker(process, folder, pattern, sign=signal.SIGKILL):
    """Kill the second worker, or tell torchrun itself to stop, as soon as a file appears."""
    deadline = time.monotonic() + 120
    while not list((folder / "run").glob(pattern)):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.002)
    workers = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(sorted(workers, key=int)[1]) if sign == signal.SIGKILL else process.pid, sign)


def test_ctrl_c_is_one_line_and_keeps_the_last_iteration(alone, tiny, tmp_path):
    begun(alone, tmp_path, "data-*", "experts-*")
    command = medistill("distill", tiny, tmp_path, *LONG)
    process = start(command, tmp_path)
    kill_worker(process, tmp_path, "distill-*/checkpoint.safetensors", signal.SIGINT)
    assert finish(process, expect=1)[1] == ["medistill: stopped; the same command goes on where this one left off"]
    assert load_file(only(tmp_path, "run/distill-*/checkpoint.safetensors"))["history"].shape[0] > 0
    assert not list((tmp_path / "run").rglob("*.tmp"))


def test_a_mistake_is_told_once(alone, tiny, tmp_path):
    begun(alone, tmp_path, "data-*")
    wild = medistill("experts", tiny, tmp_path, "--experts.lr", "1e30", "--track", "false")
    lines = finish(start(wild, tmp_path), expect=1)[1]
    assert len(lines) == 1 and "is not finite in epoch 1; lower experts.lr" in lines[0]
    typo = medistill("experts", tiny, tmp_path, "--experts.epochs", "0")
    assert finish(start(typo, tmp_path), expect=1)[1] == ["medistill: experts.epochs is 0; give at least 1"]


def test_who_does_not_tell_waits_for_who_does(monkeypatch, capsys):
    """The launcher ends all processes as soon as one has ended, and the silent one may be the quicker."""
    from medistill import cli

    waited = []
    monkeypatch.setattr(parallel.time, "sleep", waited.append)
    for rank, told in (("1", ""), ("0", "medistill: a mistake\n")):
        monkeypatch.setenv("LOCAL_RANK", rank)
        with pytest.raises(SystemExit) as end:
            cli.fail("a mistake")
        assert end.value.code == 2 and capsys.readouterr().err == told
    assert waited == [parallel.TO_TELL.total_seconds()]


@pytest.mark.parametrize("processes", [1, 2])
def test_adding_telling_and_waiting(tmp_path, processes):
    (tmp_path / "script.py").write_text(
        "import torch\n"
        "from pathlib import Path\n"
        "from medistill import parallel\n"
        "group = parallel.join()\n"
        "assert parallel.join() is group\n"
        "summed = group.total(torch.tensor([1.0, group.rank])).tolist()\n"
        "told = group.numbers([3, 1, 4] if group.leads else [])\n"
        "empty = group.numbers([])\n"
        "Path(f'rank{group.rank}').touch()\n"
        "group.wait()\n"
        "here = len(list(Path().glob('rank*')))\n"
        "Path(f'said{group.rank}').write_text(f'{summed} {told} {empty} {here} {parallel.tells()}')\n"
        "parallel.leave()\n"
        "assert torch.distributed.is_initialized() is False\n"
    )
    finish(start(torchrun("script.py", processes=processes), tmp_path))
    said = [(tmp_path / f"said{rank}").read_text() for rank in range(processes)]
    summed = [float(processes), float(sum(range(processes)))]
    assert all(line.startswith(f"{summed} [3, 1, 4] [] {processes} ") for line in said), said
    assert sorted(line.split()[-1] for line in said) == ["False"] * (processes - 1) + ["True"]


def test_the_lone_dashes_that_torchrun_may_pass_on_are_no_verb(capsys):
    main(["--", "--version"])
    assert capsys.readouterr().out.startswith("medistill ")


def test_half_an_environment_is_a_sentence(monkeypatch):
    for name in parallel.VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WORLD_SIZE", "2")
    parallel.join.cache_clear()
    with pytest.raises(UserError, match=r"WORLD_SIZE is 2, but RANK, .* is not set; start with `torchrun"):
        parallel.join()


def test_a_machine_that_never_comes_is_a_sentence(monkeypatch):
    monkeypatch.setattr(parallel, "TO_START", parallel.timedelta(seconds=0))

    class Store:
        def add(self, key, count):
            return 1

    with pytest.raises(UserError, match="1 of 2 processes have started"):
        parallel._arrive(Store(), 2)


@pytest.mark.slow
@pytest.mark.skipif("MEDISTILL_HEAVY" not in os.environ, reason="two torchrun agents: set MEDISTILL_HEAVY=1")
def test_two_agents_stand_for_two_machines(alone, tiny, tmp_path):
    """Guards the way two machines start: an agent each, which meet at one address and share a folder."""
    port = free_port()
    meeting = ("--nnodes=2", "--rdzv-backend=static", "--master-addr=127.0.0.1", f"--master-port={port}")
    agents = [
        start(
            medistill("run", tiny, tmp_path, "--track", "false", more=(*meeting, f"--node-rank={rank}")),
            tmp_path,
        )
        for rank in (0, 1)
    ]
    printed = [finish(agent)[0] for agent in agents]
    assert "4 processes, 1 thread each" in printed[0] and printed[1] == ""
    for name in ("experts-*/expert_0002.safetensors", "distill-*/distilled.safetensors", "evaluate-*/evaluation.json"):
        one, two = (only(f / "run", name).read_bytes() for f in (alone, tmp_path))
        assert one == two, name
