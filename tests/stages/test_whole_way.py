"""The main job as a user runs it, in processes of their own: results, record, silence about patients, kill -9."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import medistill
from medistill.data.imageset import ImageSet
from medistill.stages.release import fewest_patients


def command(verb, tiny, folder, *more):
    return [sys.executable, "-m", "medistill.cli", verb, *tiny.options(folder / "run", *more)]


def medistill_cli(verb, tiny, folder, *more, expect=0):
    """Run a verb with `folder` as the working folder and return what it printed."""
    done = subprocess.run(command(verb, tiny, folder, *more), cwd=folder, capture_output=True, text=True)
    assert done.returncode == expect, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def finished(tiny, tmp_path_factory):
    """A whole run and what it printed."""
    folder = tmp_path_factory.mktemp("finished")
    return folder, medistill_cli("run", tiny, folder)


def only(folder, pattern):
    found = list(folder.glob(pattern))
    assert len(found) == 1, found
    return found[0]


def results(folder):
    """The bytes of everything that must not depend on when a run was stopped."""
    names = [
        "data-*/train.safetensors",
        "data-*/cohort.csv",
        "experts-*/expert_0000.safetensors",
        "experts-*/expert_0001.safetensors",
        "distill-*/distilled.safetensors",
        "distill-*/history.json",
        "evaluate-*/evaluation.json",
        "evaluate-*/report.png",
        "audit-*/audit.json",
        "release-*/SHA256SUMS",
    ]
    return {name: only(folder / "run", name).read_bytes() for name in names}


def test_the_release_trains_in_a_plain_torch_loop(finished):
    folder, printed = finished
    released = medistill.load(only(folder / "run", "release-*"))
    assert released.folder.name in printed
    assert len(released) == 3 and released.images.shape == (3, 1, 16, 16)
    network = released.network(0)
    optimiser = torch.optim.SGD(network.parameters(), lr=released.lr, momentum=0.9)
    first = None
    for _ in range(100):
        loss = torch.nn.functional.cross_entropy(network(released.images), released.labels)
        first = first or loss.item()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss.item() < 0.5 * first
    test = ImageSet.load(only(folder / "run", "data-*") / "test.safetensors")
    accuracy = (network(released.normalise(test.images)).argmax(1) == test.labels).float().mean().item()
    chance = max(test.counts) / len(test)
    assert accuracy > chance


def test_figures_of_few_test_patients_stay_in_the_house(finished):
    """Four patients a class: with one of them a share of films called positive would be this patient's result."""
    folder, printed = finished
    released = json.loads((only(folder / "run", "release-*") / "evaluation.json").read_text())
    assert set(released) == {"withheld"} and "fewer than 10 test patients" in printed
    kept = json.loads((only(folder / "run", "evaluate-*") / "evaluation.json").read_text())
    assert kept["test_patients"] == 12 and "distilled" in kept["arms"]


def test_enough_patients_are_counted_by_class_not_by_film():
    labels, groups = torch.tensor([0] * 12 + [1] * 10), torch.tensor([*range(11), 0, *range(20, 30)])
    test = ImageSet(torch.zeros(22, 1, 8, 8), labels, groups, ("a", "b"), "toy", "test", (0.5,), (0.25,))
    assert fewest_patients(test) == 10


def test_the_same_command_again_does_nothing(finished, tiny):
    folder, _ = finished
    before = {path: path.stat().st_mtime_ns for path in (folder / "run").rglob("*") if path.is_file()}
    printed = medistill_cli("run", tiny, folder)
    after = {path: path.stat().st_mtime_ns for path in (folder / "run").rglob("*") if path.is_file()}
    assert before == after
    for line in ("2 trajectories are there already", "distill: done already", "evaluate: done already"):
        assert line in printed


def test_no_patient_is_split(finished):
    folder, _ = finished
    sets = [ImageSet.load(only(folder / "run", "data-*") / f"{n}.safetensors") for n in ("train", "val", "test")]
    groups = [set(s.groups.tolist()) for s in sets]
    assert sum(map(len, groups)) == 48 == len(set.union(*groups))
    assert sum(map(len, sets)) == 96 and all(min(s.counts) > 0 for s in sets)


def test_nothing_of_a_patient_in_release_record_or_output(finished, tiny):
    folder, printed = finished
    public = [only(folder / "run", "release-*"), folder / "mlflow.db", folder / "mlartifacts"]
    files = [f for place in public for f in ([place] if place.is_file() else place.rglob("*")) if f.is_file()]
    assert len(files) > 12
    for mark in tiny.marks:
        assert mark not in printed
        for file in files:
            assert mark.encode() not in file.read_bytes(), file
            assert mark not in str(file.relative_to(folder))
    # the search can find: the table that stays in the house has every mark it should
    table = only(folder / "run", "data-*/cohort.csv").read_bytes()
    assert b"MARKEDPATIENT" in table and b"MARKEDFOLDER" in table


def test_no_picture_of_real_films_in_release_or_record(finished):
    """neighbours.png and the image sets stay in the run's own folders."""
    folder, _ = finished
    assert sorted(p.name for p in only(folder / "run", "release-*").iterdir()) == [
        "README.md",
        "SHA256SUMS",
        "audit.json",
        "config.yaml",
        "croissant.json",
        "dicom",
        "distilled.npz",
        "distilled.safetensors",
        "environment.json",
        "evaluation.json",
        "images",
        "metadata.json",
        "preview.png",
    ]
    pictures = [p.name for p in (folder / "mlartifacts").rglob("*.png")]
    assert sorted(pictures) == [
        "calibration.png",
        "closest_record.png",
        "comparisons.png",
        "confusion.png",
        "curves.png",
        "decision_curve.png",
        "distilled.png",
        "report.png",
        "roc.png",
        "weights.png",
    ]


def client_of(folder):
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=f"sqlite:///{folder / 'mlflow.db'}")


def stages_in(folder, stage):
    """The attempts at a stage, oldest first."""
    client = client_of(folder)
    experiment = client.get_experiment_by_name("tiny").experiment_id
    return client.search_runs([experiment], f"tags.`medistill.stage` = '{stage}'", order_by=["start_time ASC"])


def test_the_record_in_mlflow(finished):
    folder, _ = finished
    client = client_of(folder)
    experiment = client.get_experiment_by_name("tiny")
    runs = client.search_runs([experiment.experiment_id])
    parents = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    assert len(parents) == 1
    stages = {run.data.tags["medistill.stage"]: run for run in runs if run not in parents}
    assert set(stages) == {"data", "experts", "distill", "evaluate", "audit", "report", "release"}
    assert all(run.data.tags["mlflow.parentRunId"] == parents[0].info.run_id for run in stages.values())
    assert all(run.info.status == "FINISHED" for run in runs)
    history = json.loads(only(folder / "run", "distill-*/history.json").read_text())
    logged = client.get_metric_history(stages["distill"].info.run_id, "loss_unweighted")
    assert [m.value for m in sorted(logged, key=lambda m: m.step)] == pytest.approx(history["loss_unweighted"])
    evaluation = json.loads(only(folder / "run", "evaluate-*/evaluation.json").read_text())
    mean = evaluation["arms"]["distilled"]["mean"]["balanced_accuracy"]
    assert stages["evaluate"].data.metrics["balanced_accuracy/distilled"] == pytest.approx(mean)
    train = ImageSet.load(only(folder / "run", "data-*") / "train.safetensors")
    assert stages["experts"].inputs.dataset_inputs[0].dataset.digest == train.digest[:36]
    assert stages["distill"].data.params["distill.iterations"] == "40"
    signed = stages["release"].data.params
    assert (signed["accepted.name"], signed["accepted.reason"]) == ("tester", "phantoms")
    assert "decision.json" in {item.path for item in client.list_artifacts(stages["release"].info.run_id)}
    assert "report.html" in {item.path for item in client.list_artifacts(stages["report"].info.run_id)}
    assert {"audit.json", "summary.md"} <= {i.path for i in client.list_artifacts(stages["audit"].info.run_id)}
    artifacts = {item.path for item in client.list_artifacts(stages["distill"].info.run_id)}
    assert {"config.yaml", "environment.json", "figures"} <= artifacts


def kill_when(process, folder, pattern):
    """Kill -9 a run (its workers too) as soon as a file appears."""
    deadline = time.monotonic() + 120
    while not list((folder / "run").glob(pattern)):
        assert process.poll() is None, f"the run ended before {pattern} appeared"
        assert time.monotonic() < deadline
        time.sleep(0.002)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="kill -9 is POSIX")
def test_killed_in_every_stage_the_same_command_finishes_with_the_same_bytes(finished, tiny, tmp_path):
    """Guards the promise that kill -9 at any moment loses nothing: one run killed five times, then finished."""
    for pattern in (
        "data-*/train.safetensors",
        "experts-*/expert_0000.safetensors",
        "distill-*/checkpoint.safetensors",
        "arms/distilled-*",
        "evaluate-*/done.json",
    ):
        process = subprocess.Popen(
            command("run", tiny, tmp_path),
            cwd=tmp_path,
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        kill_when(process, tmp_path, pattern)
    printed = medistill_cli("run", tiny, tmp_path)
    assert "To share:" in printed
    assert results(tmp_path) == results(finished[0])
    assert not [path for path in (tmp_path / "run").rglob("*") if path.name.endswith(".tmp")]
    attempts = stages_in(tmp_path, "distill")
    assert "RUNNING" not in {run.info.status for run in attempts}
    whole = [run for run in attempts if run.info.status == "FINISHED"]
    steps = {m.step for m in client_of(tmp_path).get_metric_history(whole[-1].info.run_id, "alpha")}
    assert steps == set(range(1, 41)), "the record of the resumed attempt tells every iteration"


def test_bad_files_are_all_listed_and_can_be_left_out(tiny, tmp_path):
    folder = tmp_path / "cohort"
    shutil.copytree(tiny.cohort.parent, folder)
    films = sorted((folder / "films").iterdir())
    films[0].write_bytes(b"not a film")
    films[7].write_bytes(films[7].read_bytes()[:200])
    bad = tiny.__class__(folder / "cohort.csv", tiny.marks)
    printed = medistill_cli("check", bad, tmp_path, expect=2)
    assert films[0].name in printed and films[7].name in printed and "2 of 96 files cannot be used" in printed
    printed = medistill_cli("check", bad, tmp_path, "--data.on_bad_file", "skip")
    assert "note: 2 of 96 files cannot be used and were left out" in printed
    assert films[0].name in printed and films[7].name in printed
    assert "check: the cohort is ready" in printed
    assert [path.name.split("-")[0] for path in (tmp_path / "run").iterdir()] == ["films"]


def test_what_was_audited_is_what_is_released(finished, tiny, tmp_path):
    """A file changed behind a finished stage is named; a damaged release is not called written."""
    shutil.copytree(finished[0] / "run", tmp_path / "run")
    release = only(tmp_path / "run", "release-*")
    card = release / "README.md"
    card.write_text(card.read_text() + "changed")
    quiet = ("--track", "false")
    assert "README.md" in medistill_cli("release", tiny, tmp_path, *quiet, expect=1)
    shutil.rmtree(release)
    distilled = only(tmp_path / "run", "distill-*/distilled.safetensors")
    whole = distilled.read_bytes()
    distilled.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    printed = medistill_cli("release", tiny, tmp_path, *quiet, expect=2)
    assert "distilled.safetensors: was changed after its stage wrote it" in printed
    assert not list((tmp_path / "run").glob("release-*"))
    distilled.write_bytes(whole)
    only(tmp_path / "run", "audit-*/audit.json").write_text("")
    assert "audit.json: was changed" in medistill_cli("release", tiny, tmp_path, *quiet, expect=2)


def test_a_new_licence_makes_a_new_release_and_nothing_else(finished, tiny, tmp_path):
    shutil.copytree(finished[0] / "run", tmp_path / "run")
    printed = medistill_cli("run", tiny, tmp_path, "--data.licence", "CC-BY-4.0", "--track", "false")
    assert "audit: done already" in printed and "films ->" not in printed
    cards = [path.read_text() for path in (tmp_path / "run").glob("release-*/README.md")]
    assert sorted("CC-BY-4.0" in card for card in cards) == [False, True]


def test_too_many_images_per_class_are_told_before_any_work(finished, tiny):
    printed = medistill_cli("run", tiny, finished[0], "--distill.ipc", "30", expect=2)
    assert "distill.ipc is 30, but class Normal has" in printed and "evaluate.baselines" in printed


@pytest.mark.skipif(sys.platform != "linux", reason="finds the worker processes in /proc")
def test_ctrl_c_while_films_are_read_is_one_line(tiny, tmp_path):
    process = subprocess.Popen(
        command("run", tiny, tmp_path, "--track", "false"),
        cwd=tmp_path,
        start_new_session=True,
        # a test run in the background of a shell would hand down that Ctrl-C is ignored
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    while len(children.read_text().split()) < 2:  # the forkserver and its resource tracker: films come next
        assert process.poll() is None
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130
    assert errors.strip() == "medistill: stopped; the same command goes on where this one left off"


def test_more_real_starts_than_patients_is_one_line(finished, tiny):
    folder, _ = finished
    more = ("--distill.start", "real", "--distill.ipc", "40")
    printed = medistill_cli("distill", tiny, folder, *more, expect=2)
    assert "distill.ipc is 40, but class Normal has" in printed and "training patients" in printed
    assert len(printed.strip().splitlines()) == 1


def test_a_copied_film_fails_the_audit_and_nothing_is_released(finished, tiny, tmp_path):
    """Real films that distillation hardly moved: the audit must see them and the release refuse."""
    for name in ("data-*", "experts-*"):
        there = only(finished[0] / "run", name)
        shutil.copytree(there, tmp_path / "run" / there.name)
    leak = ("--distill.start", "real", "--distill.iterations", "2", "--distill.lr_images", "0.001")
    printed = medistill_cli("run", tiny, tmp_path, *leak, "--evaluate.baselines", "false", "--track", "false", expect=2)
    assert "2 trajectories are there already" in printed
    assert "audit: verdict fail" in printed
    assert "failed, so nothing is released" in printed
    assert not list((tmp_path / "run").glob("release-*"))


def test_a_skipped_iteration_and_a_collapsing_w_end_in_a_whole_run(finished, tiny, tmp_path):
    """An iteration without a finite loss is null in the history, not the end of the run."""
    for name in ("data-*", "experts-*"):
        there = only(finished[0] / "run", name)
        shutil.copytree(there, tmp_path / "run" / there.name)
    wild = ("--distill.alpha", "1e30", "--distill.lr_alpha", "0", "--distill.iterations", "3")
    literal = ("--distill.importance", "literal", "--distill.lr_importance", "1e30", "--track", "false")
    medistill_cli("distill", tiny, tmp_path, *wild, *literal)
    history = json.loads(only(tmp_path / "run", "distill-*/history.json").read_text())
    assert history["skipped"] == [1, 1, 1] and history["loss_unweighted"][0] is None
