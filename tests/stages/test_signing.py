"""`medistill release --key`, `verify` and `keygen` on a run of a few seconds."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from medistill.cli import main
from medistill.release.load import load


def medistill(*words: object) -> None:
    main([str(word) for word in words])


def refused(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str]:
    """Exit code and sentence of a command that must fail."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as stopped:
        medistill(*words)
    code = stopped.value.code
    assert isinstance(code, int)
    return code, capsys.readouterr().err


def test_a_release_is_signed_when_it_is_written_or_later(
    tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'record' / 'mlflow.db'}")
    monkeypatch.delenv("MEDISTILL_KEY_PASSWORD", raising=False)
    for name in ("SECRETKEYNAME", "other"):
        medistill("keygen", tmp_path / name)
    key, pub = tmp_path / "SECRETKEYNAME.key", tmp_path / "SECRETKEYNAME.pub"
    shorter = ("--distill.iterations", "4", "--evaluate.steps", "5", "--evaluate.seeds", "2")
    options = tiny.options(tmp_path / "run", *shorter)

    code, told = refused(capsys, "run", *options, "--key", pub)
    assert code == 2 and "a public key, which cannot sign" in told and not (tmp_path / "run").exists()

    medistill("run", *options)
    (folder,) = (tmp_path / "run").glob("release-*")
    medistill("verify", folder)
    told = capsys.readouterr().out
    assert "nobody signed this release" in told and told.splitlines()[-1].endswith("the files are verified")
    code, told = refused(capsys, "verify", folder, "--pub", pub)
    assert code == 1 and "signature.json: missing, so nobody signed" in told

    medistill("release", *options, "--key", key)
    first = (folder / "signature.json").read_bytes()
    capsys.readouterr()
    medistill("verify", folder, "--pub", pub)
    told = capsys.readouterr().out
    fingerprint = json.loads(first)["fingerprint"]
    for line in (f"fingerprint {fingerprint}", "audit: inconclusive", "  accepted by tester: phantoms", "start: noise"):
        assert line in told
    assert told.splitlines()[-1] == "verified" and load(folder, pub).fingerprint == fingerprint

    code, told = refused(capsys, "release", *options, "--key", tmp_path / "other.key")
    assert code == 2 and "signed already by another key" in told
    assert (folder / "signature.json").read_bytes() == first

    shutil.rmtree(folder)
    medistill("release", *options, "--key", key)
    assert [path.name for path in (tmp_path / "run").glob("release-*")] == [folder.name]
    assert (folder / "signature.json").read_bytes() == first
    _no_word_of_the_key(tmp_path / "run", tmp_path / "record")

    _set_learning_rate(folder, 0.5)
    for words in ((), ("--key", key)):
        code, told = refused(capsys, "release", *options, *words)
        assert code == 1 and "are not those of this run, so it is neither signed nor taken for this run's" in told
    assert not (folder / "signature.json").exists()


def _no_word_of_the_key(*folders: Path) -> None:
    """Nothing in a run or in its record tells where the key lies."""
    for folder in folders:
        for path in folder.rglob("*"):
            assert not path.is_file() or b"SECRETKEYNAME" not in path.read_bytes(), path


def _set_learning_rate(folder: Path, lr: float) -> None:
    """Another learning rate wherever it stands in a release, so that `verify` finds nothing, under fitting sums."""
    from dataclasses import replace

    from medistill.distill.distilled import Distilled
    from medistill.release.bundle import write_release

    found = load(folder)
    audit = {name: value for name, value in found.audit.items() if name != "decision"}
    settings = (folder / "config.yaml").read_text()
    evaluation = json.loads((folder / "evaluation.json").read_text())
    source = json.loads((folder / "metadata.json").read_text())["source"]
    changed = replace(Distilled.load(folder / "distilled.safetensors"), lr=lr)
    shutil.rmtree(folder)
    write_release(
        folder,
        distilled=changed,
        config_yaml=settings,
        evaluation=evaluation,
        audit=audit,
        overview=source,
        accept="tester: phantoms",
    )
    load(folder)
