"""The command line: quick help, and every mistake one clear line with exit code 2."""

import errno
import os
import subprocess
import sys
from itertools import pairwise

import pytest

from medistill.cli import VERBS, configure, main


def fails(capsys, *words):
    with pytest.raises(SystemExit) as stopped:
        main(list(words))
    assert stopped.value.code == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("medistill: ") and lines[0].isprintable() and len(lines[0]) < 700
    return lines[0]


@pytest.mark.parametrize("words", [["--help"], *([verb, "--help"] for verb in VERBS)], ids=lambda w: w[0])
def test_help_imports_nothing_heavy(words):
    code = (
        "import sys\nfrom medistill.cli import main\n"
        f"try: main({words!r})\nexcept SystemExit as e: assert not e.code\n"
        "heavy = {'torch', 'monai', 'mlflow', 'pydicom', 'numpy', 'pandas'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "usage: medistill" in done.stdout
    if words[0] != "--help":
        assert "images per class" in done.stdout and "step size on the pixels" in done.stdout


def test_torch_does_not_complain_of_a_gpu_that_nobody_asked_for():
    """Its other warnings are let through."""
    code = (
        "import torch\ntorch.cuda.is_available = lambda: False\nfrom medistill.cli import main\n{}"
        "import torch.utils.cpp_extension as it\nit.logger.warning('something real')"
    )
    told = []
    for first in ("", "main(['--version'])\n"):
        command, environment = [sys.executable, "-c", code.format(first)], os.environ | {"CUDA_HOME": "/nowhere"}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
        told.append(["No CUDA runtime" in done.stderr, "something real" in done.stderr])
    assert told == [[True, True], [False, True]]


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("distill.ipc", "0", "distill.ipc is 0; give at least 1"),
        ("distill.inner_steps", "0", "distill.inner_steps is 0; give at least 1"),
        ("distill.max_start_epoch", "99", "beyond the trajectory's last, experts.epochs 30"),
        ("distill.ipc", "ten", "distill.ipc is 'ten'; give a whole number"),
        ("distill.ipc", "2.5", "distill.ipc is '2.5'; give a whole number"),
        ("distill.ipcc", "1", "--distill.ipcc is not a setting; did you mean --distill.ipc?"),
        ("distil.ipc", "1", "--distil.ipc is not a setting; did you mean --distill.ipc?"),
        ("iterations", "1", "--iterations is not a setting; did you mean --distill.iterations?"),
        ("cofnig", "a.yaml", "--cofnig is not a setting; did you mean --config?"),
        ("xyzzy", "1", "--xyzzy is not a setting; see medistill distill --help"),
        (
            "distill.start",
            "zeros",
            "distill.start is 'zeros'; give one of noise, phantom, class_mean, real, private_means",
        ),
        ("distill.start", "fantom", "private_means (did you mean phantom?)"),
        ("experts.lr", "fast", "experts.lr is 'fast'; give a number"),
        ("track", "maybe", "track is 'maybe'; give true or false"),
        ("distill.augment", "colour", "distill.augment has 'colour'; give a list of names in brackets"),
        ("distill.augment", "[1, 2]", "distill.augment has '1'; give a list of names in brackets"),
        ("evaluate.prevalences", "half", "evaluate.prevalences has 'half'; give a list of numbers in brackets"),
        ("data.columns", "3", "data.columns has '3'; give pairs in braces"),
        ("data", "3", "data is '3'; it is a section, so give its settings by name, such as data.adapter"),
        ("data", "gone.yaml", "data is 'gone.yaml'; it is a section"),
        ("distill.augment", "[colour]", "'colour' is not an augmentation"),
        ("evaluate.seeds", "0", "evaluate.seeds is 0"),
        ("experts.lr", "-1", "experts.lr is -1.0; give a positive step size"),
        ("evaluate.architectures", "[resnet18:0]", "'resnet18:0' is no network"),
        ("evaluate.architectures", "[vit:33]", "'vit:33': net.width is 33, but a head of vit takes 32 numbers"),
        ("net.depth", "7", "net.depth 7 halves data.size 64 to nothing"),
        ("data.val_fraction", "1.5", "data.val_fraction is 1.5"),
        ("distill.momentum", "1", "distill.momentum is 1.0"),
        ("config", "nowhere.yaml", "nowhere.yaml' is not there; give the path of a YAML file"),
        ("data.size", "15", "data.size is 15; give 16 to 512 pixels"),
        ("data.cohort", "", "data.cohort is empty"),
        ("run", "", "run is empty"),
        ("threads", "100000", "threads is 100000; give 0 to"),
        ("audit.holdout", "2", "fewer cannot tell a copy from chance"),
        ("data.classes", "[A, A]", "names a class twice; name each once"),
        ("experts.lr", ".inf", "experts.lr is inf; give a finite number"),
        (
            "audit.planted",
            "9" * 5000,
            "audit.planted cannot be read (Exceeds the limit (4300 digits) for integer string conversion)",
        ),
        ("run", "a\x1b[2J", "run holds characters that are not printable; write it without them"),
        ("device", "\x1b[2J" + "x" * 5000, "device is '?[2Jxxx"),
        ("x" * 5000, "1", "... is not a setting; see medistill distill --help"),
        ("data.columns", "[" * 5000, "no setting is so large (it is nested more than 20 deep"),
        ("data", "{phantom: " * 5000, "no setting is so large (it is nested more than 20 deep"),
    ],
)
def test_mistakes_are_one_line(capsys, option, value, message):
    found = fails(capsys, "distill", f"--{option}", value)
    assert message in found
    assert not any(word in found for word in ("typing", "Literal", "<class", "Parser key"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("distill: {ipc: 2, iteratoins: 5}", "distill.iteratoins is not a setting; did you mean distill.iterations?"),
        ("experts: {private: {epsilom: 2}}", "experts.private.epsilom is not a setting; did you mean experts.private"),
        ("dat: {size: 32}", "dat.size is not a setting; did you mean data.size?"),
        ("ipc: 3", "ipc is not a setting; did you mean distill.ipc?"),
        ("seed: [1, 2]", "seed is '[1, 2]'; give a whole number"),
        ("distill: 5", "distill is '5'; it is a section, so give its settings by name, such as distill.method"),
        ("seed: 1\ndistill:", "distill is empty; it is a section"),
        ("experts: {private: 3}", "experts.private is '3'; it is a section"),
        ("- a", "config: the file holds '- a'; write settings there"),
        ("", "config: the file holds nothing; write settings there"),
        ("a: [1\nb", "config: the file is no YAML (while parsing a flow sequence"),
        ("seed: 1\nseed: 2", "config: the file is no YAML (seed stands there twice); mend it there"),
        ("a: &a [*a]", "config: the file is no YAML (the alias a stands for nothing before it); mend it there"),
        ("data: {" + "x: {" * 5000, "nested more than 20 deep"),
        ("seed: " + "9" * 5000, "config: the file is no YAML (ValueError: Exceeds the limit"),
        ("1:", "config: the file is no YAML (TypeError"),
        ("data: {columns: {1: 2}}", "config: the file is no YAML ('1' is no name of a setting)"),
        ("data: {classes: [" + "'a\\x1b', " * 3000 + "]}", "data.classes"),
    ],
)
def test_a_mistake_in_a_file_is_one_line(capsys, tmp_path, text, message):
    (tmp_path / "c.yaml").write_text(f"{text}\n")
    found = fails(capsys, "distill", "--config", str(tmp_path / "c.yaml"))
    assert message in found and "Parser key" not in found


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["foo"], "'foo' belongs to no option; options look like --distill.ipc 2, see medistill distill --help"),
        (["--distill.ipc"], "--distill.ipc is given no value"),
    ],
)
def test_words_that_are_no_options_are_one_line(capsys, words, message):
    assert message in fails(capsys, "distill", *words)


@pytest.mark.parametrize("joined", [True, False])
def test_a_bomb_in_a_word_is_refused_before_it_is_built(capsys, joined):
    """Nine times nine values, ten times over: the parser would read it as a number."""
    names = "abcdefghij"
    bomb = "{a: &a [x, x], " + ", ".join(
        f"{after}: &{after} [{', '.join([f'*{name}'] * 9)}]" for name, after in pairwise(names)
    )
    words = [f"--seed={bomb}}}"] if joined else ["--seed", f"{bomb}}}"]
    assert "no setting is so large (it holds more than 10,000 values); give" in fails(capsys, "distill", *words)


def test_a_config_in_another_encoding_is_one_line(capsys, tmp_path):
    (tmp_path / "c.yaml").write_bytes("run: läufe\n".encode("latin-1"))
    assert "not in UTF-8" in fails(capsys, "distill", "--config", str(tmp_path / "c.yaml"))


def test_an_unknown_verb_is_one_line(capsys):
    message = fails(capsys, "distil")
    assert "'distil' is not a verb; choose one of check, experts" in message and "(did you mean distill?)" in message
    assert "did you mean" not in fails(capsys, "xyzzy")


def test_later_options_override_the_file_and_print_config_round_trips(capsys, tmp_path):
    (tmp_path / "c.yaml").write_text("distill: {ipc: 2}\nseed: 5\n")
    config = configure("distill", ["--config", str(tmp_path / "c.yaml"), "--distill.ipc", "10"])
    assert (config.distill.ipc, config.seed) == (10, 5)
    with pytest.raises(SystemExit):
        main(["distill", "--config", str(tmp_path / "c.yaml"), "--print_config"])
    printed = capsys.readouterr().out
    (tmp_path / "again.yaml").write_text(printed)
    assert configure("distill", ["--config", str(tmp_path / "again.yaml")]).distill.ipc == 2


def test_shipped_configs_are_found_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert configure("run", ["--config", "configs/phantom.yaml"]).data.name == "phantom"
    assert configure("run", ["--config=configs/covid19.yaml"]).data.positive == "COVID"


def test_a_missing_cohort_is_one_line(capsys, tmp_path, monkeypatch):
    monkeypatch.delenv("MEDISTILL_DATA", raising=False)
    message = fails(capsys, "check", "--data.cohort", "gone.csv", "--run", str(tmp_path), "--track", "false")
    assert "gone.csv is neither in the current folder nor" in message and "MEDISTILL_DATA" in message


def test_a_stage_without_its_predecessor_says_which_to_run(capsys, tmp_path, tiny):
    message = fails(capsys, "distill", *tiny.options(tmp_path / "run", "--track", "false"))
    assert "run `medistill experts` with the same options first" in message


def test_a_full_disk_is_one_line_and_leaves_nothing_half_written(capsys, tmp_path, monkeypatch, tiny):
    """The third file of the load stage meets a full disk; afterwards the same command finishes."""
    from medistill.stages import load

    written = []

    class Full:
        """Images that the disk has no room for."""

        shape = (0, 1, 16, 16)

        def __getitem__(self, index):
            raise OSError(errno.ENOSPC, "No space left on device")

    def full(path, images, *rest):
        written.append(path)
        write_set(path, Full() if len(written) == 3 else images, *rest)

    write_set = load.write_set
    monkeypatch.setattr(load, "write_set", full)
    options = tiny.options(tmp_path / "run", "--track", "false")
    message = fails(capsys, "experts", *options)
    assert "test.safetensors: the disk is full" in message
    left = sorted(path.name for path in (tmp_path / "run").rglob("*") if path.is_file())
    assert left == [".lock", "journal", "rows", "train.safetensors", "val.safetensors"]
    monkeypatch.setattr(load, "write_set", write_set)
    main(["experts", *options])
    assert "2 trained, 2 in all" in capsys.readouterr().out


def test_a_folder_without_rights_is_one_line(capsys, tmp_path, tiny):
    (tmp_path / "run").write_text("a file where the run's folder belongs")
    assert "check the disk's space and the rights" in fails(
        capsys, "experts", *tiny.options(tmp_path / "run", "--track", "false")
    )


def test_ctrl_c_says_how_to_go_on(capsys, monkeypatch):
    def stopped(config):
        raise KeyboardInterrupt

    monkeypatch.setattr("medistill.cli.stage", lambda verb: stopped)
    with pytest.raises(SystemExit) as end:
        main(["run"])
    assert end.value.code == 130 and "the same command goes on" in capsys.readouterr().err


def test_short_options_stand_for_settings():
    chosen = configure("audit", ["--quick", "--override=Dr. A: because: it is a drill", "--accept", "Dr. B: yes"])
    assert chosen.audit.quick is True
    assert chosen.release.override == "Dr. A: because: it is a drill" and chosen.release.accept == "Dr. B: yes"
    assert configure("audit", ["--quick", "--audit.quick", "false"]).audit.quick is False


@pytest.mark.parametrize("method", ["iadd", "mtt", "seqmatch", "dm", "dc", "dsa", "dwa", "mgdd"])
def test_one_config_serves_every_method(method):
    settings = configure("distill", ["--config", "configs/cifar10_iadd.yaml", "--method", method]).distill
    assert settings.method == method
    # what a later subset of SeqMatch has to reach
    assert settings.max_start_epoch - 1 + settings.expert_epochs <= settings.seqmatch.epochs


def test_the_settings_of_a_method_decide_its_result_and_no_others():
    """What decides names the folder of a distillation: one too few and a stale set is taken for the new one."""

    def decides(method, *more):
        return configure("distill", ["--method", method, "--distill.ipc", "2", *more]).distill.decides()

    for method, setting in {
        "seqmatch": "seqmatch.subsets=1",
        "dm": "dm.lr=3",
        "dc": "dc.lr=3",
        "dsa": "dc.lr=3",
        "dwa": "dwa.lr=3",
        "mgdd": "mgdd.lr=3",
    }.items():
        assert decides(method) != decides(method, f"--distill.{setting}")
        assert decides("iadd") == decides("iadd", f"--distill.{setting}") != decides(method)
    assert decides("dc") != decides("dsa") and decides("dm") == decides("dm", "--distill.iterations=7")
    assert decides("mtt") == decides("iadd", "--distill.importance=off")
