"""What README and docs point to is there, and README stays short."""

import re
from pathlib import Path

import pytest

from medistill.cli import FOLDER_VERBS, VERBS

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
SCREEN = (40, 120)
"""Lines and columns of a screen."""


def test_readme_stays_under_three_screens():
    lines = (ROOT / "README.md").read_text().splitlines()
    assert len(lines) < 3 * SCREEN[0]
    long = [line for line in lines if len(line) > SCREEN[1] and not line.startswith("|")]
    assert long == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_what_a_page_points_to_is_there(page):
    text = page.read_text()
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text)
    assert [link for link in links if not (page.parent / link).exists()] == []
    named = re.findall(
        r"\b((?:configs|pipelines|docs|notebooks|tests)/[\w./-]+\.(?:yaml|py|md|json|png|csv|ipynb))\b", text
    )
    assert [name for name in named if "NAME" not in name and not (ROOT / name).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_a_page_names_verbs_that_there_are(page):
    commands = re.findall(r"^    (?:\.venv/bin/)?medistill ([a-z]+)", page.read_text(), re.MULTILINE)
    assert set(commands) <= {*VERBS, *FOLDER_VERBS}
