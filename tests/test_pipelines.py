"""The studies run on a shrunken config, and the table they write holds what the stages measured."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

PIPELINES = Path(__file__).resolve().parents[1] / "pipelines"


@pytest.mark.slow
def test_the_covid19_study_shrunk(tiny, tmp_path):
    """Guards the command behind the README's table: every arm, every baseline, one JSON (about 40 s)."""
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
