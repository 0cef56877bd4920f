"""The shipped config on the real cohort."""

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.realdata


def test_the_real_cohort_is_ready_and_its_split_kept(real_data, tmp_path):
    """1,750 films: the given test split is respected, and validation takes a seventh of the training patients."""
    words = ["check", "--config", "configs/covid19.yaml", "--data.near_duplicate", "1", "--data.workers", "2"]
    done = subprocess.run(
        [sys.executable, "-m", "medistill.cli", *words],
        cwd=tmp_path,
        env={**os.environ, "MEDISTILL_DATA": str(real_data)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[-1] == "check: the cohort is ready"
    assert "test: 328 films of" in lines[-2]
    assert "(COVID 101, Normal 102, Viral Pneumonia 66, Bacterial Pneumonia 59)" in lines[-2]
    films = {line.split(":")[0]: int(line.split()[1]) for line in lines[:-1]}
    assert films["train"] + films["val"] == 1422
    assert films["val"] == pytest.approx(1422 * 0.15, rel=0.1)
    assert [path.name.split("-")[0] for path in (tmp_path / "runs" / "covid19").iterdir()] == ["films"]
