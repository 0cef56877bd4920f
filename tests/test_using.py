"""The examples of docs/using.md run as they stand, each prints its figure, and the verbs it shows are there."""

import doctest
import re
from pathlib import Path

import pytest
import torch
from stages.toy_release import release_of

from medistill.cli import configure_folder

PAGE = Path(__file__).resolve().parents[1] / "docs" / "using.md"
SECTIONS = {"torch": 1, "MONAI": 1, "scikit-learn": 1, "torchvision, on the pictures": 2}
"""Examples by title, and how many lines each prints."""


def test_the_examples_run_and_print_their_figures(tmp_path: Path) -> None:
    folder = release_of(tmp_path / "toy", mask=0.0)
    torch.manual_seed(0)
    parser, runner = doctest.DocTestParser(), doctest.DocTestRunner(verbose=False)
    told: list[str] = []
    examples = parser.get_doctest(PAGE.read_text(), {"folder": folder}, PAGE.name, str(PAGE), 0)
    result = runner.run(examples, out=told.append)
    assert result.failed == 0, "".join(told)
    assert result.attempted == len(examples.examples) > 20


@pytest.mark.parametrize(("title", "prints"), SECTIONS.items())
def test_an_example_is_of_ten_lines_or_so_and_prints(title: str, prints: int) -> None:
    (section,) = re.findall(rf"^## {title}\n(.*?)(?=^## |\Z)", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    examples = doctest.DocTestParser().get_examples(section)
    assert sum(bool(example.want) for example in examples) == prints
    assert sum(example.source.count("\n") for example in examples) <= 12


def test_the_commands_shown_are_understood() -> None:
    lines = re.findall(r"^    medistill (train|predict) (.*?)(?: +#.*)?$", PAGE.read_text(), re.MULTILINE)
    assert len(lines) >= 4
    for verb, words in lines:
        if "$" not in words:
            configure_folder(verb, words.split())
