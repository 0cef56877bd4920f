"""The page: templates filled with numbers that know where they come from."""

from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from medistill.report.html import sentences
from medistill.report.html.content import Content
from medistill.report.html.limits import limits
from medistill.report.html.numbers import Numbers, few
from medistill.report.html.pictures import data_uri, size
from medistill.report.html.words import METRICS, SCORES, word

TEMPLATES = Path(__file__).parent / "templates"


def render(content: Content) -> str:
    """The report as one HTML file; every text that comes from data or settings is escaped."""
    numbers = Numbers(content.sources)
    said = {
        name: getattr(sentences, name)(content, numbers)
        for name in ("summary", "loss", "roc", "calibration", "benefit")
    }
    groups = content.evaluation.get("subgroups")
    page = _environment().get_template("report.html")
    return page.render(
        content=content,
        evaluation=content.evaluation,
        audit=content.audit,
        arms=content.arms,
        metrics=METRICS,
        scores=SCORES,
        groups=groups,
        gaps=sentences.subgroup_gaps(content) if groups else None,
        limits=limits(content, numbers),
        number=numbers.number,
        patients=numbers.patients,
        films=numbers.films,
        few=few,
        interval=numbers.interval,
        text=numbers.text,
        facts=numbers.facts,
        style=Markup((TEMPLATES / "style.css").read_text()),
        **said,
    )


@cache
def _environment() -> Environment:
    made = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"data_uri": data_uri, "png_size": size, "word": word}
    return made
