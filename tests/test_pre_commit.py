"""The hook that keeps films, keys and large files out of the repository."""

import importlib.util
import io
import subprocess
from pathlib import Path

import pytest
import yaml
from PIL import Image

from medistill.data.phantom_files import write_cohort

ROOT = Path(__file__).resolve().parents[1]
HOOK = ROOT / ".pre-commit" / "refuse_patient_files.py"


@pytest.fixture
def hook():
    spec = importlib.util.spec_from_file_location("refuse_patient_files", HOOK)
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def picture() -> bytes:
    made = io.BytesIO()
    Image.new("L", (8, 8)).save(made, "PNG")
    return made.getvalue()


def test_films_are_refused_whatever_they_are_called(hook, folder, capsys):
    write_cohort(folder / "films", patients=6, films=2, size=32, seed=0)
    films = sorted(path for path in (folder / "films").rglob("*") if path.suffix in (".dcm", ".png"))
    assert {path.suffix for path in films} == {".dcm", ".png"}
    for number, film in enumerate(films):
        Path(f"notes_{number}.txt").write_bytes(film.read_bytes())
    assert hook.main([f"notes_{number}.txt" for number in range(len(films))]) == 1
    told = capsys.readouterr().out.splitlines()
    assert len(told) == len(films) and all(line.endswith("keep it outside of the repository") for line in told)


def test_a_film_without_its_preamble_is_refused(hook, folder):
    write_cohort(folder / "films", patients=6, films=2, size=32, seed=0)
    film = next((folder / "films").rglob("*.dcm")).read_bytes()
    Path("bare").write_bytes(film[132:])
    assert "DICOM" in hook.reason(Path("bare"))


@pytest.mark.parametrize(
    "name, content, why",
    [
        ("figure.png", picture(), "is a picture"),
        ("a.zip", b"PK\x03\x04" + bytes(40), "is an archive"),
        ("table.csv", b"a,b\n" * 200_000, "has 800,000 bytes"),
        ("hospital.key", b"x", "ends in .key"),
        ("hospital.pem", b"-----BEGIN PRIVATE KEY-----\n", "is a private key"),
        ("weights.safetensors", bytes(9), "ends in .safetensors"),
        ("scan.nii.gz", bytes(9), "ends in .gz"),
        ("mlflow.db", bytes(9), "ends in .db"),
    ],
)
def test_what_is_refused(hook, folder, name, content, why):
    Path(name).write_bytes(content)
    assert hook.reason(Path(name)).startswith(why)


def test_what_may_be_committed(hook, folder, capsys):
    for name, content in {"a.py": b"x = 1\n", "docs/results/a.png": picture(), "empty": b""}.items():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(content)
    assert hook.main(["a.py", "docs/results/a.png", "empty"]) == 0 and capsys.readouterr().out == ""


def test_every_file_of_the_project_passes(hook, monkeypatch):
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    monkeypatch.chdir(ROOT)
    assert hook.main([name for name in listed.stdout.split("\0") if name and Path(name).exists()]) == 0


def test_the_hooks_call_what_is_there_and_fetch_nothing():
    repos = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert [repo["repo"] for repo in repos] == ["local"]
    assert f"python3 {HOOK.relative_to(ROOT)}" in [hook["entry"] for hook in repos[0]["hooks"]]
