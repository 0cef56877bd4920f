"""The door for settings: whatever a config file or the words of a command hold, a Config comes out, or a sentence."""

import io
import json
import re
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import asdict
from functools import cache
from pathlib import Path
from random import Random
from typing import Any
from unittest.mock import patch

import yaml
from fuzz.explore import explore
from fuzz.law import sentence
from fuzz.mutate import mutate
from fuzz.watchdog import Files, Watchdog
from hypothesis import strategies as st

from medistill import cli
from medistill.config import Config
from medistill.mistakes import options
from medistill.seeds import derive

DOOR, NAME = "config", "config.yaml"
SHIPPED = Path(__file__).resolve().parents[2] / "configs"
NAMES = [name for name, _ in options()]
parser = cache(
    cli.parser
)  # made once: that takes longer than to parse, which leaves it as it was but for --print_config
PRINTING = ("-h", "--h", "--print", "--version")


def judge(folder: Path) -> str:
    """Read the settings; `CONFIG` among the words stands for the file's path."""
    words = json.loads((folder / "words.json").read_text())
    words = [word.replace("CONFIG", str(folder / NAME)) for word in words]
    told, printed = io.StringIO(), io.StringIO()
    made = cli.parser if any("-p" in word for word in words) else parser
    try:
        with redirect_stderr(told), redirect_stdout(printed), patch.object(cli, "parser", made):
            config = cli.configure("distill", words)
    except SystemExit as stopped:
        if stopped.code == 0:
            assert any(word.startswith(PRINTING) for word in words) and not told.getvalue(), "exit code 0"
            return "printed"
        assert stopped.code == 2 and not printed.getvalue(), f"exit code {stopped.code}"
        text = told.getvalue().replace(str(folder), "")
        assert text.endswith("\n") and text.startswith("medistill: "), f"told {text[:300]!r}"
        sentence(text[len("medistill: ") : -1], r"\S")
        return "refused"
    assert not told.getvalue() and not printed.getvalue(), told.getvalue() + printed.getvalue()
    assert isinstance(config, Config)
    settings = asdict(config)
    assert json.loads(json.dumps(settings, allow_nan=False)) == settings, "does not survive JSON"
    assert yaml.safe_load(yaml.safe_dump(settings)) == settings, "does not survive YAML"
    return "returned"


def case(body: bytes, words: list[str]) -> Files:
    return {NAME: body, "words.json": json.dumps(words).encode()}


def mutants(seed: int, cases: int) -> Iterator[Files]:
    """The shipped configs, then mutants of them."""
    shipped = [path.read_bytes() for path in sorted(SHIPPED.glob("*.yaml"))]
    plain = [re.sub(rb"(?m)^#.*\n", b"", body) for body in shipped]  # mutants of comments are no mutants
    for index in range(cases):
        if index < len(shipped):
            body = shipped[index]
        else:
            chance = Random(derive(seed, DOOR, index))
            body = mutate(plain[index % len(plain)], chance, plain, rounds=2)
        yield case(body, ["--config", "CONFIG"])


BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{after}: &{after} [{', '.join([f'*{name}'] * 9)}]\n" for name, after in zip("abcdefgh", "bcdefghi", strict=True)
)
TEXTS = [
    BOMB,
    BOMB + "data: {classes: *i}\n",
    "data: {classes: &c [A, *c]}\n",
    "data: &d {phantom: *d}\n",
    "[" * 5000,
    "{a: " * 5000,
    "- " * 5000,
    "data:\n" + "".join(" " * depth + "data:\n" for depth in range(1, 500)),
    "seed: " + "9" * 5000,
    "seed: 1" + ":59" * 3000,
    "seed: 0x" + "f" * 5000,
    "seed: !!python/object/apply:os.system ['echo']",
    "seed: !!python/name:os.system",
    "seed: !!int x",
    "seed: !!bool x",
    "run: !!timestamp 2001-99-99",
    "run: !!binary x",
    "run: !!set {a, b}",
    "1:",
    "{1: 2, null: 3}",
    "? [a]\n: b",
    "<<: {seed: 1}",
    "seed: 1\nseed: 2",
    "seed: 1\n---\nseed: 2",
    "%YAML 9.9\n---\nseed: 1",
    "run: " + "x" * 100000,
    "run: 'a\\0b'",
    'run: "a\\0b"',
    'run: "\\e[2J"',
    "\0",
    "\ufeffseed: 1",
    "config: other.yaml",
    "data: CONFIG",
    "distill: {augment: " + "[" * 40 + "]" * 40 + "}",
    "{" + ", ".join(f"k{number}: 1" for number in range(20000)) + "}",
]
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 5000),
    st.integers(),
    st.floats(),
    st.sampled_from([10**30, -(10**400), 1e308, "1e999", ".inf", ".nan", "on", "no", "0o17", "1_000", "1:30", "~", ""]),
    st.sampled_from(["auto", "cpu", "convnet", "iadd", "noise", "real", "phantom", "films", "COVID", "\x1b[2J", "*a"]),
    st.text(max_size=20),
)
TREES = st.recursive(SCALARS, lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(SCALARS, inner)))
NEAR = st.dictionaries(
    st.sampled_from(NAMES),
    st.one_of(SCALARS, SCALARS, st.lists(SCALARS, max_size=3), st.dictionaries(SCALARS, SCALARS, max_size=3), TREES),
    max_size=4,
)


def nested(flat: dict[str, Any]) -> dict[str, Any]:
    """Dotted names as a tree; a name whose section is no section is left out."""
    tree: dict[str, Any] = {}
    for name, value in flat.items():
        *sections, last = name.split(".")
        inside: Any = tree
        for section in sections:
            inside = inside.setdefault(section, {}) if isinstance(inside, dict) else None
        if isinstance(inside, dict):
            inside[last] = value
    return tree


@st.composite
def files(draw: st.DrawFn) -> Files:
    """A config file: settings that could be, trees that could not, YAML at its limits."""
    kind = draw(st.integers(0, 9))
    if kind < 6:
        text = yaml.safe_dump(nested(draw(NEAR)), default_flow_style=draw(st.booleans()), allow_unicode=True)
    elif kind == 6:
        text = yaml.safe_dump(draw(TREES), allow_unicode=True)
    elif kind < 9:
        text = draw(st.sampled_from(TEXTS))
    else:
        text = draw(st.text(st.sampled_from("ab:-,[]{}#&*!|>'\"%@` \n\t?~01.\\\0"), max_size=40))
    body = text.encode("utf-8", "surrogatepass")
    if draw(st.integers(0, 19)) == 0:
        body = draw(st.sampled_from([body.decode("utf-8", "replace").encode("utf-16"), b"\xff\xfe" + body, b"\x80"]))
    return case(body, ["--config", "CONFIG"])


WORDS = st.one_of(
    st.sampled_from(["--config", "CONFIG", "--config=CONFIG", "--data", "--", "-", "-h", "--help", "--print_config"]),
    st.sampled_from(["--quick", "--method", "--accept=a: b", "--print_config=x", "configs/phantom.yaml", *cli.VERBS]),
    st.sampled_from(NAMES).map("--{}".format),
    st.tuples(st.sampled_from(NAMES), st.one_of(SCALARS, st.sampled_from(TEXTS))).map("--{0[0]}={0[1]}".format),
    SCALARS.map(str),
    st.sampled_from([text for text in TEXTS if len(text) < 2**17]),
    st.text(max_size=10),
    st.text(max_size=10).map("--{}".format),
)  # fmt: skip


@st.composite
def commands(draw: st.DrawFn) -> Files:
    """The words of a command: options with values, options without, and what is no option."""
    words = [word.replace("\0", "") for word in draw(st.lists(WORDS, max_size=5))]  # no system passes a null byte on
    return case(b"distill: {ipc: 2}\n", words)


def test_mutants_of_the_shipped_configs(cases: int, seed: int) -> None:
    with Watchdog(DOOR, seed, judge) as watchdog:
        watchdog.check_all(mutants(seed, cases // 3))


def test_files_of_any_kind(cases: int, seed: int) -> None:
    with Watchdog(DOOR, seed, judge) as watchdog:
        watchdog.check_all(case(text.encode(), ["--config", "CONFIG"]) for text in TEXTS)
        explore(watchdog, files(), cases - 2 * (cases // 3))


def test_commands_of_any_words(cases: int, seed: int) -> None:
    with Watchdog(DOOR, seed, judge) as watchdog:
        explore(watchdog, commands(), cases // 3)


def test_again(again: Files, seed: int) -> None:
    """The one case that MEDISTILL_FUZZ_AGAIN names."""
    with Watchdog(DOOR, seed, judge) as watchdog:
        watchdog.check_all(iter([again]))
