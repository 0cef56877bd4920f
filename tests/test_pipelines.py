"""The studies run on a shrunken config, and the table they write holds what the stages measured."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from medistill.files import read_metadata

PIPELINES = Path(__file__).resolve().parents[1] / "pipelines"


@pytest.mark.slow
def test_the_covid19_study_shrunk(tiny, tmp_path):
    """Guards the command behind docs/covid19.md: every arm, every baseline, one JSON (about 40 s)."""
    shrunk = ["--data.columns", "{}", "--track", "false", "--audit.planted", "10", "--audit.holdout", "20"]
    code = (
        f"import sys; sys.path.insert(0, {str(PIPELINES)!r}); import covid19\n"
        "covid19.BUDGETS = {'ipc1': ([], 2), 'ipc2': (['--distill.ipc', '2', '--distill.batch', '3'], 1)}\n"
        "covid19.STARTS = ('noise', 'real')\n"
        "if __name__ == '__main__': covid19.main()\n"
    )
    (tmp_path / "study.py").write_text(code)
    (tmp_path / "docs" / "results").mkdir(parents=True)
    words = [sys.executable, "study.py", "--", *tiny.options(tmp_path / "run", *shrunk)]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    table = json.loads((tmp_path / "docs" / "results" / "covid19.json").read_text())
    rows = table["rows"]
    names = {f"ipc{i}-{start}-{method}" for i in (1, 2) for start in ("noise", "real") for method in ("mtt", "iadd")}
    assert set(rows) == names | {"ipc1-random real", "ipc2-random real", "full data"}
    assert len(rows["ipc1-noise-iadd"]) == 2 and len(rows["ipc2-noise-iadd"]) == 1
    assert rows["ipc2-real-mtt"][0]["images"] == 6
    assert rows["ipc1-noise-iadd"][0]["mean"] != rows["ipc1-noise-iadd"][1]["mean"]
    assert rows["ipc1-noise-iadd"][0]["audit"]["verdict"] in ("pass", "fail", "inconclusive")
    assert "audit" not in rows["ipc1-noise-iadd"][1]
    evaluations = [json.loads(p.read_text()) for p in (tmp_path / "run").glob("evaluate-*/evaluation.json")]
    measured = [e["arms"]["distilled"]["mean"] for e in evaluations]
    assert all(row["mean"] in measured for name in names for row in rows[name])
    assert 0 <= table["aspect ratio and source only"]["auroc_positive"] <= 1
    assert "MARKED" not in json.dumps(table)


@pytest.mark.slow
@pytest.mark.realdata
def test_the_cifar10_study_shrunk(little_cifar10, tmp_path):
    """Guards the command that runs the published benchmark: both budgets, both starts, both methods (about 60 s)."""
    code = (
        f"import sys; sys.path.insert(0, {str(PIPELINES)!r}); import cifar10\n"
        "cifar10.BUDGETS = {'ipc 1': {'ipc': 1, 'inner_steps': 2, 'max_start_epoch': 1},\n"
        "                   'ipc 2': {'ipc': 2, 'inner_steps': 2, 'max_start_epoch': 1}}\n"
        "cifar10.SCALES['small'] = {'net.width': 4, 'threads': 1, 'data.zca': 'false', 'experts.count': 1,\n"
        "    'experts.epochs': 3, 'distill.iterations': 2, 'evaluate.steps': 5, 'evaluate.seeds': 2}\n"
        "if __name__ == '__main__': cifar10.main()\n"
    )
    (tmp_path / "study.py").write_text(code)
    (tmp_path / "docs" / "results").mkdir(parents=True)
    (tmp_path / "configs").symlink_to(PIPELINES.parent / "configs")
    words = [sys.executable, "study.py", "--cohort", str(little_cifar10 / "cifar10"), "--", "--track", "false"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    table = json.loads((tmp_path / "docs" / "results" / "cifar10_small.json").read_text())
    arms = {f"ipc {n}, {s} start, {m}" for n in (1, 2) for s in ("real", "noise") for m in ("MTT", "IADD")}
    assert set(table["rows"]) == arms | {"all training images"} | {f"ipc {n}, random real images" for n in (1, 2)}
    assert table["rows"]["ipc 2, noise start, IADD"]["images"] == 20
    evaluations = [json.loads(p.read_text()) for p in (tmp_path / "runs").glob("*/evaluate-*/evaluation.json")]
    measured = [e["arms"]["distilled"]["mean"] for e in evaluations]
    assert all(table["rows"][arm]["mean"] in measured for arm in arms)
    assert str(tmp_path) not in json.dumps(table)


@pytest.mark.slow
def test_the_engine_benchmark_tiny(tmp_path):
    """Guards `make bench`: every kind of row, from small networks and loops, uncompiled (about 50 s)."""
    (tmp_path / "docs" / "results").mkdir(parents=True)
    code = (PIPELINES / "bench_engine.py").read_text()
    for old, new in {
        "32, 128, 3)": "16, 4, 2)",
        "112, 128, 5)": "16, 4, 2)",
        "CIFAR, 10, 50, 0": "CIFAR, 10, 3, 0",
        "FILM, 40, 40, 0": "FILM, 8, 4, 0",
        "\n\n\nSTUDENTS": "\nCELLS = {name: CELLS[name] for name in (*CELLS,)[::3]}\nSTUDENTS",
        "STUDENT_STEPS = 20, 300": "STUDENT_STEPS = 3, 20",
        "compiled: bool = True": "compiled: bool = False",
        'compiled = device.type == "cpu"': "compiled = False",
        "(4, 1024)": "(2, 64)",
        "300 // ipc": "4",
        "3, 32, 32,": "3, 16, 16,",
        "for j in (20, 200)": "for j in (2, 4)",
        '["J 200"] / peaks["J 20"]': '["J 4"] / max(1, peaks["J 2"])',
        "for j in (5, 20, 50)": "for j in (2, 3)",
    }.items():
        assert old in code, old
        code = code.replace(old, new)
    (tmp_path / "bench.py").write_text(code)
    words = [sys.executable, "bench.py", "--repeats", "1", "--device", "cpu"]
    beside = {**os.environ, "PYTHONPATH": str(PIPELINES)}
    done = subprocess.run(words, cwd=tmp_path, env=beside, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "docs" / "results" / "bench_engine_cpu.json").read_text())
    measures = [row["measure"] for row in found["rows"]]
    assert measures == ["distill_memory", "distill_speed"] * 2 + ["experts_speed"] + ["evaluate_speed"] * 2
    for row in found["rows"]:
        better = row["reference"] / row["ours"] if "bytes" in row["unit"] else row["ours"] / row["reference"]
        assert row["ratio"] == pytest.approx(better)
    ours = [row for row in found["gradient"] if row["side"] == "ours"]
    assert all(row["cosine"] > 0.999 and abs(row["length"] - 1) < 0.01 for row in ours) and len(ours) == 2
    assert all(1 / 3 < found["accuracy"][side]["mean"] <= 1 for side in ("reference", "ours"))
    assert all(told["told_s"] > 0 and told["told_bytes"] > 0 for told in found["estimates"])


@pytest.mark.slow
def test_the_privacy_study_tiny(tmp_path):
    """Guards the DP mode's table: cells are kept and not run again, rows hold what they measured (about 30 s)."""
    code = (
        f"import sys; sys.path.insert(0, {str(PIPELINES)!r})\n"
        "from dataclasses import replace\n"
        "from functools import cache\n"
        "import privacy, privacy_cell\n"
        "from medistill.evaluate.student import Recipe\n"
        "whole = privacy.STUDIES['digits']\n"
        "@cache\n"
        "def few(standin):\n"
        "    films = whole.films(standin)\n"
        "    return privacy_cell.Films.of(films.pixels[:160], films.labels[:160], 100)\n"
        "study = replace(whole, films=few, delta=1e-3, seeds=2, shadows=4, students=2,\n"
        "    experts=replace(whole.experts, count=2, private=replace(whole.experts.private, steps=2)),\n"
        "    distill=replace(whole.distill, ipc=1, iterations=2, inner_steps=2))\n"
        "privacy.STUDIES = {'digits': study}\n"
        "privacy.EPSILONS = (float('inf'), 3.0)\n"
        "privacy.WEIGHED = {'digits': (10.0,)}\n"
        "privacy_cell.USUAL = Recipe(steps=20, augment=())\n"
        "privacy.main()\n"
    )
    (tmp_path / "study.py").write_text(code)
    for share in ("1/2", "0/1"):
        words = [sys.executable, "study.py", "--share", share]
        done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    files = sorted((tmp_path / "runs" / "privacy" / "real").glob("digits-*/*.safetensors"))
    assert [file.stem for file in files] == [
        f"{epsilon}-{number:02d}" for epsilon in ("3", "inf") for number in range(6)
    ]
    found = json.loads((tmp_path / "docs" / "results" / "privacy.json").read_text())["studies"]["digits"]
    assert (found["train"], found["held_out"]) == (100, 60)
    kept = [read_metadata(file) for file in files]
    for epsilon, cells in (("3", kept[:2]), ("inf", kept[6:8])):
        row = found["rows"][epsilon]
        assert row["accuracies"] == [cell["student"]["accuracy"] for cell in cells]
        assert row["student"]["accuracy"][0] == pytest.approx(sum(row["accuracies"]) / 2)
        assert row["noise_multiplier"] == cells[0]["noise_multiplier"]
    assert found["rows"]["inf"]["noise_multiplier"] == 0
    assert found["rows"]["3"]["noise_multiplier"] > 0.4
    assert found["rows"]["3"]["membership"]["theory"]["tpr_at_0.01"] < 1
    attack = found["rows"]["inf"]["membership"]
    assert (attack["runs"]["members"], attack["runs"]["others"]) == (200, 120)
    assert (attack["shadows"]["members"], attack["shadows"]["others"]) == (320, 320)
    assert attack["theory"]["tpr_at_0.01"] == 1  # without noise nothing is ruled out
    assert all(set(pair) == {"off", "on"} for pair in found["wiener"]["10"])
    assert (tmp_path / "docs" / "results" / "privacy.png").exists()


@pytest.mark.slow
def test_the_architectures_study_shrunk(tiny, tmp_path):
    """Guards the command behind docs/architectures.md: every row by every student, and a rerun that does nothing."""
    shrunk = ["--data.columns", "{}", "--track", "false", "--evaluate.steps", "10", "--evaluate.resamples", "50"]
    code = (
        f"import sys; sys.path.insert(0, {str(PIPELINES)!r}); import architectures\n"
        "from medistill.config import Net\n"
        "architectures.COMMON = ''\n"
        "architectures.STUDENTS, architectures.GRID = ('convnet', 'resnet18:2'), (0.01, 1e30)\n"
        "architectures.ROWS = ('random films', 'IADD on alexnet:2', 'all films')\n"
        "architectures.DISTILLED_ON = {'IADD on alexnet:2': Net('alexnet', 2)}\n"
        "if __name__ == '__main__': architectures.main()\n"
    )
    (tmp_path / "study.py").write_text(code)
    (tmp_path / "docs" / "results").mkdir(parents=True)
    written = []
    for _ in range(2):
        words = [sys.executable, "study.py", *tiny.options(tmp_path / "run", *shrunk)]
        done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        written.append((tmp_path / "docs" / "results" / "architectures.json").read_text())
    assert written[0] == written[1] and "distill" not in done.stdout
    table = json.loads(written[0])
    assert "MARKED" not in written[0] and str(tmp_path) not in written[0]
    (folder,) = (tmp_path / "run").glob("distill-*")
    alpha = json.loads((folder / "history.json").read_text())["alpha"][-1]
    for row in ("random films", "IADD on alexnet:2", "all films"):
        for student in ("convnet", "resnet18:2"):
            cell = table["rows"][row][student]
            assert cell["choice"]["lr"] == cell["chosen"]["lr"] == 0.01
            assert [tried["diverged"] for tried in cell["choice"]["table"]] == [0, 2]
            assert cell["at_alpha"]["lr"] == pytest.approx(0.05 if "films" in row else alpha)
            assert len(cell["chosen"]["runs"]) == 2
    assert table["rows"]["all films"] != table["rows"]["random films"]


@pytest.mark.slow
def test_the_external_study_tiny(tiny, tmp_path):
    """Guards the study of a source held out: who is trained on and tested, every arm, every control (about 15 s)."""
    from medistill.data.phantom_files import write_cohort

    cohort = write_cohort(tmp_path / "cohort", patients=120, films=2, size=32, seed=3)
    rows = cohort.read_text().splitlines()
    # one patient of the site held out was seen elsewhere too
    both = next(i for i, row in enumerate(rows) if row.endswith(",north"))
    rows[both] = rows[both].removesuffix("north") + "south"
    cohort.write_text("\n".join(rows) + "\n")
    (tmp_path / "docs" / "results").mkdir(parents=True)
    (tmp_path / "configs").symlink_to(PIPELINES.parent / "configs")
    more = ["--data.columns", "{}", "--track", "false", "--data.cohort", str(cohort), "--distill.iterations", "3"]
    words = [sys.executable, PIPELINES / "external.py", "--site", "north", "--"]
    done = subprocess.run(
        [*words, *tiny.options(tmp_path / "run", *more)], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    table = [row.split(",") for row in (tmp_path / "run" / "held_out.csv").read_text().splitlines()]
    names = table[0]
    films = [dict(zip(names, row, strict=True)) for row in table[1:]]
    assert {film["split"] for film in films if film["site"] == "north"} == {"test"}
    assert {film["site"] for film in films if film["split"] != "test"} == {"south", "west"}
    north = sum(row.endswith(",north") for row in rows)
    assert sum(film["site"] == "north" for film in films) == north - 1  # less the other film of that patient
    found = json.loads((tmp_path / "docs" / "results" / "external.json").read_text())
    assert set(found["films"]) == {"as they are", "border masked"}
    plain, masked = found["films"]["as they are"], found["films"]["border masked"]
    assert plain["arms"] != masked["arms"]
    assert {name: row["networks"] for name, row in plain["arms"].items()} == {
        "full data": 2,
        "random real": 6,
        "distilled": 6,
    }
    for row in plain["arms"].values():
        for where in ("internal", "external"):
            for metric, (low, high) in row[where]["interval"].items():
                assert 0 <= low <= row[where]["mean"][metric] <= high <= 1
    sites = plain["subgroups"]["full data"]["attributes"]["site"]["values"]
    assert next(row for row in sites if row["value"] == "north")["films"] == north - 1
    controls = plain["controls"]
    assert controls["aspect ratio alone"]["internal"]["auroc_positive"] == 0.5  # phantom films are square
    assert 0 < controls["within and across sources"]["distilled"]["share"] < 1
    assert (tmp_path / "docs" / "results" / "subgroups_cxr.png").exists()
    assert str(tmp_path) not in json.dumps(found)


@pytest.mark.slow
def test_the_study_of_importance_shrunk(tiny, tmp_path):
    """Guards the command behind the table of MTT against IADD: same seeds, right sign (about 40 s)."""
    code = (
        f"import sys; sys.path.insert(0, {str(PIPELINES)!r}); import importance\n"
        f"importance.CONFIGS = {{'tiny': {str(PIPELINES.parent / 'configs' / 'phantom.yaml')!r}}}\n"
        "importance.BUDGETS = {'1': ([], [('off', 'scalar'), ('literal', 'tensor'), ('ascend', 'channel')])}\n"
        "if __name__ == '__main__': importance.main()\n"
    )
    (tmp_path / "study.py").write_text(code)
    (tmp_path / "docs" / "results").mkdir(parents=True)
    words = [sys.executable, "study.py", "--", *tiny.options(tmp_path / "run", "--track", "false")]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = json.loads((tmp_path / "docs" / "results" / "importance.json").read_text())["rows"]
    arms = ("MTT", "IADD literal tensor", "IADD ascend channel", "random real", "k-means", "herding", "full data")
    assert set(rows) == {f"tiny/1/{arm}" for arm in arms}
    one, mtt = rows["tiny/1/IADD ascend channel"], rows["tiny/1/MTT"]
    assert one["distillation_seeds"] == 2 and one["lr_importance"] in (10.0, 100.0)
    for metric, paired in one["against_mtt"].items():
        assert paired["difference"] == pytest.approx(one["mean"][metric] - mtt["mean"][metric], abs=1e-12)
    full = rows["tiny/1/full data"]["mean"]["balanced_accuracy"]
    assert mtt["share_of_full"] == pytest.approx(mtt["mean"]["balanced_accuracy"] / full)


@pytest.mark.slow
def test_the_benchmark_shrunk(tiny, tmp_path):
    """Guards the table of all methods: step sizes from validation, a rerun that does nothing (about 40 s)."""
    shrunk = [
        "--data.columns",
        "{}",
        "--track",
        "false",
        "--evaluate.resamples",
        "20",
        "--evaluate.baselines",
        "false",
        "--distill.iterations",
        "4",
        "--evaluate.steps",
        "10",
    ]
    seqmatch = {"distill.method": "seqmatch", "distill.seqmatch.epochs": 4, "distill.seqmatch.student_steps": 5}
    mtt, dm = {"distill.method": "mtt"}, {"distill.method": "dm", "distill.dm.iterations": 2, "distill.dm.batch": 8}
    plan = {
        "machine": "any",
        "seeds": [0, 1],
        "common": {"distill.start": "noise"},
        "data": {"tiny": {"config": "plan_config.yaml", "settings": {}, "ipc": {1: {}, 2: {"distill.batch": 3}}}},
        "methods": {
            "MTT": {"settings": mtt, "tune": "distill.lr_images", "grid": [1, 1e30], "marks": "t"},
            "DM": {
                "settings": dm,
                "at": {"tiny/2": {"distill.dm.iterations": 3}},
                "tune": "distill.dm.lr",
                "grid": [1, 10],
            },
            "SeqMatch": {"settings": seqmatch, "tune": "distill.lr_images", "grid": [1], "least_ipc": 2},
        },
        "marks_of_all": "w",
        "marks": {"w": "width", "t": "iterations"},
        "published": {"tiny/1": {"MTT": 46.2}},
    }  # fmt: skip
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(plan, sort_keys=False))
    (tmp_path / "plan_config.yaml").write_text("distill: {ipc: 1}\n")
    (tmp_path / "docs" / "results").mkdir(parents=True)
    words = [sys.executable, PIPELINES / "benchmark.py", "--plan", "plan.yaml"]
    more = ["--", *tiny.options(tmp_path / "run", *shrunk)]
    said, written = [], []
    for options in (["--only", "tiny/2/DM"], [], ["--table"]):
        done = subprocess.run([*words, *options, *more], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        said.append(done.stdout)
        written.append({path.suffix: path.read_bytes() for path in (tmp_path / "docs" / "results").glob("plan.*")})
    assert written[0] == {} and set(written[1]) == {".json", ".csv", ".md", ".png"} and written[1] == written[2]
    assert "benchmark:" not in said[1] and "distill:" not in said[2], said
    found = json.loads(written[1][".json"])
    rows = {(row["ipc"], row["arm"]): row for row in found["rows"]}
    others = {"the start images", "random real", "k-means", "herding"}
    assert set(rows) == {(1, name) for name in {"MTT", "DM", *others}} | {
        (2, name) for name in {"MTT", "DM", "SeqMatch", *others}
    } | {("", "full data")}
    for ipc in (1, 2):
        dm_row, start = rows[ipc, "DM"], rows[ipc, "the start images"]
        tried = {float(step): score for step, score in dm_row["validation_by_step"].items()}
        assert set(tried) == {1, 10} and tried[dm_row["step"]] == max(tried.values())
        assert (dm_row["sets"], dm_row["networks"], dm_row["images"]) == (2, 2, 3 * ipc)
        assert dm_row["minus_start"] == pytest.approx(dm_row["accuracy"] - start["accuracy"])
        assert dm_row["beats_its_start"] in ("yes", "no", "not shown")
        assert rows[ipc, "MTT"]["step"] == 1  # at the other one it does not come to an end
    assert (rows[1, "MTT"]["published"], rows[1, "MTT"]["marks"], rows[2, "MTT"]["published"]) == (46.2, "wt", None)
    lines = written[1][".csv"].decode().splitlines()
    assert len(lines) == len(rows) + 1 and "| MTT |" in written[1][".md"].decode()
    assert "MARKED" not in json.dumps(found) and str(tmp_path) not in json.dumps(found)


@pytest.mark.slow
@pytest.mark.realdata
def test_the_study_of_mgdd_shrunk(real_data, tmp_path):
    """Guards the command behind docs/mgdd.md: every arm at every budget, at the step size it chose (about 20 s)."""
    code = (
        f"import sys; sys.path.insert(0, {str(PIPELINES)!r}); import mgdd\n"
        "from dataclasses import replace\n"
        "mgdd.IPCS, mgdd.GRID, mgdd.META, mgdd.FEW, mgdd.MANY, mgdd.STUDENTS = (1, 2), (0.003, 0.01), 1, 1, 2, 2\n"
        "mgdd.OWN = replace(mgdd.OWN, inner=1, ipcs=[1, 2], batch=32, width=4, maps=2)\n"
        "mgdd.RECIPE, mgdd.CHOOSERS = mgdd.Recipe(5, 8, augment=()), ('start', 'fresh, 2 steps', 'meta, 2 steps')\n"
        "if __name__ == '__main__': mgdd.main()\n"
    )
    (tmp_path / "study.py").write_text(code)
    (tmp_path / "docs" / "results").mkdir(parents=True)
    (tmp_path / "configs").symlink_to(PIPELINES.parent / "configs")
    shrunk = "--experts.count 1 --experts.epochs 2 --distill.max_start_epoch 1 --distill.iterations 2 --net.width 4"
    words = [sys.executable, "study.py", *shrunk.split(), "--threads", "1"]
    environment = os.environ | {"MEDISTILL_DATA": str(real_data)}
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    table = json.loads((tmp_path / "docs" / "results" / "mgdd.json").read_text())
    arms = ["start", *(f"{name}, {steps} steps" for name in ("fresh", "meta") for steps in (0, 1, 2))]
    rows = table["rows"]
    assert set(rows) == {f"{arm}, ipc {ipc}" for arm in arms for ipc in (1, 2)} | {"MTT, ipc 1", "MTT, ipc 10"}
    for ipc in (1, 2):
        tried = table["validation by step size"][str(ipc)]
        best = float(max(tried, key=tried.__getitem__))
        assert all(row["lr"] == best for arm in arms for row in rows[f"{arm}, ipc {ipc}"])
        assert all(len(rows[f"{arm}, ipc {ipc}"]) == 2 for arm in arms)
        # the same draws of noise go into both generators before any step, so what differs is the meta-training
        assert rows[f"fresh, 0 steps, ipc {ipc}"] != rows[f"meta, 0 steps, ipc {ipc}"]
        assert all("ridge_error" in row for arm in arms[1:] for row in rows[f"{arm}, ipc {ipc}"])
    assert {"experts", "MTT, ipc 1, 2 iterations", "meta-training, 1 steps of Reptile"} <= set(table["seconds"])


@pytest.mark.slow
def test_the_study_of_several_sites_tiny(tiny, tmp_path):
    """Guards what sites gain by sharing sets: who holds what, every arm, labels under one order (about 40 s)."""
    from medistill.data.phantom_files import write_cohort

    cohort = write_cohort(tmp_path / "cohort", patients=120, films=2, size=32, seed=3)
    head, *rows = cohort.read_text().splitlines()
    places = [head.split(",").index(name) for name in ("site", "label")]
    films = [tuple(row.split(",")[place] for place in places) for row in rows]
    lacks = ("north", "Pneumonia")
    kept = [row for row, film in zip(rows, films, strict=True) if film != lacks]
    cohort.write_text("\n".join([head, *kept]) + "\n")
    (tmp_path / "docs" / "results").mkdir(parents=True)
    (tmp_path / "configs").symlink_to(PIPELINES.parent / "configs")
    code = (
        f"import sys; sys.path.insert(0, {str(PIPELINES)!r}); import multisite_parts\n"
        "multisite_parts.SITES = {'A': ('north',), 'B': ('south',), 'C': ('west',)}\n"
        "multisite_parts.FACTORS = (1, 0.01)\n"
        "import multisite\n"
        "multisite.SEEDS = 2\n"
        "if __name__ == '__main__': multisite.main()\n"
    )
    (tmp_path / "study.py").write_text(code)
    more = ["--data.columns", "{}", "--track", "false", "--data.cohort", str(cohort), "--distill.iterations", "12"]
    words = [sys.executable, "study.py"]
    shrunk = ["--", *tiny.options(tmp_path / "run", *more, "--evaluate.steps", "10", "--evaluate.resamples", "20")]
    for only in (["--only", "merged"], []):
        done = subprocess.run([*words, *only, *shrunk], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        if only:
            assert not list((tmp_path / "docs" / "results").iterdir()), "a part of the arms writes no table"
    text = (tmp_path / "docs" / "results" / "multisite.json").read_text()
    found = json.loads(text)
    held, dealt = ([found["films"][f"{kind}{site}"] for site in "ABC"] for kind in ("", "dealt "))
    assert set(held[0]) == {"Normal", "COVID"} and set(held[1]) == {"Normal", "Pneumonia", "COVID"}
    assert sum(sum(site.values()) for site in held) == sum(sum(site.values()) for site in dealt)
    arms = found["rows"]
    sets = {f"{kind}{site}, distilled" for kind in ("", "dealt ") for site in ("A", "B", "C", "merged")}
    tuned = {f"{kind}merged, distilled, step size by validation" for kind in ("", "dealt ")}
    real = {f"{site}, real" for site in ("A", "B", "C", "all films")}
    assert set(arms) == sets | tuned | real | {f"all films at {n} a class, distilled" for n in (1, 2)}
    assert [len(arms[name]) for name in ("A, real", "merged, distilled")] == [1, 2]
    assert [arms[f"{name}, distilled"][0]["images"] for name in ("A", "B", "merged", "dealt merged")] == [2, 3, 8, 9]
    assert arms["A, real"][0]["recall"]["Pneumonia"] == 0, "what a site has never seen it cannot name"
    assert arms["A, real"][0]["classes"] == ["Normal", "COVID"]
    one = arms["merged, distilled"][0]
    steps = [arms[f"{site}, distilled"][0]["lr"] for site in "ABC"]
    assert one["lr"] == pytest.approx((steps[0] ** 2 * steps[1] ** 3 * steps[2] ** 3) ** (1 / 8))
    best = arms["merged, distilled, step size by validation"][0]
    assert any(best["lr"] == pytest.approx(one["lr"] * factor) for factor in (1, 0.01))
    assert best["validation"]["balanced_accuracy"] >= one["validation"]["balanced_accuracy"]
    assert len({row[0]["lr"] for name, row in arms.items() if "merged" not in name and "distilled" in name}) == 8
    assert (tmp_path / "docs" / "results" / "multisite.png").exists()
    assert "MARKED" not in text and str(tmp_path) not in text
