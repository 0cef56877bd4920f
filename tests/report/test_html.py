"""The HTML report: every number is the JSON's, every text is escaped, nothing comes from elsewhere."""

import json
import re
from dataclasses import replace
from decimal import Decimal
from itertools import pairwise

import pytest
from report.reader import Element, Reader

from medistill.report.html import render
from medistill.report.html.page import TEMPLATES

CLASSES = ["covid", "normal", "viral <script>alert()</script>"]
DIGITS = re.compile("[0-9]")


@pytest.fixture(scope="module")
def page(content):
    return render(content)


@pytest.fixture(scope="module")
def tree(page):
    return Reader(page).root


def resolved(content, path):
    """The value behind a JSON pointer, read by RFC 6901 without the code under test."""
    value = {"evaluation": content.evaluation, "audit": content.audit, "history": content.history}
    value["record"] = content.record
    for part in path.split("/"):
        key = part.replace("~1", "/").replace("~0", "~")
        value = value[int(key)] if isinstance(value, list) else value[key]
    return value


def read(text):
    """A shown number and half a unit of its last place, in the unit of the value."""
    plain = text.replace("\u202f", "").replace("\u2212", "-")
    scale = Decimal("0.01") if plain.endswith("%") else Decimal(1)
    digits, _, exponent = plain.removesuffix("%").partition("×10")
    if exponent:
        scale *= Decimal(10) ** int(exponent.translate(str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-")))
    places = len(digits.partition(".")[2])
    return Decimal(digits) * scale, Decimal(10) ** -places * scale / 2


def test_every_number_shown_is_the_one_in_the_json(content, tree):
    shown = [element for element in tree.all() if "data-path" in element.attributes]
    for element in shown:
        path, text = element.attributes["data-path"], element.text()
        value = resolved(content, path)
        if "data-value" not in element.attributes:
            assert isinstance(value, str) and text == value, path
            continue
        assert json.loads(element.attributes["data-value"]) == value, path
        if text == "<\u202f0.001":
            assert value < 0.001
            continue
        number, half = read(text)
        assert abs(number - Decimal(value)) <= half * (1 + Decimal("1e-9")), (path, text, value)
    numbers = {element.attributes["data-path"] for element in shown if "data-value" in element.attributes}
    assert len(numbers) > 250
    for wanted in (
        "evaluation/arms/distilled/mean/balanced_accuracy",
        "evaluation/arms/full data/interval/auroc_positive/1",
        "evaluation/comparisons/3/non_inferiority/margin",
        "evaluation/arms/distilled/classifier/at_prevalence/2/npv/bootstrap/0",
        "evaluation/subgroups/attributes/sex/gaps/specificity/reference/high",
        "evaluation/scores/ars",
        "evaluation/arms/distilled/confusion/2/1",
        "audit/checks/1/power",
        "audit/checks/1/positive_control/nested/auc/auc",
        "history/loss_unweighted/1",
    ):
        assert wanted in numbers


def grid(tree, name):
    """A table's cells by row and column head: the paths that each quotes."""
    (table,) = [t for t in tree.all("table") if [c for c in t.all("caption") if c.attributes["id"] == name]]
    head, *rows = [list(row.all("th", "td")) for row in table.all("tr")]
    for row in rows:
        yield from (
            (
                " ".join(row[0].text().split()),
                title.text(),
                [e.attributes["data-path"] for e in cell.all("span") if "data-path" in e.attributes],
            )
            for title, cell in zip(head[1:], row[1:], strict=True)
        )


def test_every_number_stands_under_its_own_heads(tree, content):
    """A number may be that of its path and yet stand in another's place."""
    metrics = {
        "accuracy": "accuracy",
        "balanced accuracy": "balanced_accuracy",
        "macro F-score": "macro_f1",
        "AUROC, mean of classes": "auroc_macro",
        "AUROC, covid": "auroc_positive",
        "sensitivity, covid": "sensitivity",
        "specificity, covid": "specificity",
    }
    arms = ["distilled", "random real", "k-means", "herding", "full data"]
    cells = [cell for cell in grid(tree, "arms") if cell[1] != "images"]
    assert [cell[0] for cell in cells[::7]] == arms and [cell[1] for cell in cells[:7]] == list(metrics)
    for arm, title, paths in cells:
        own, name = f"evaluation/arms/{arm}", metrics[title]
        parts = ("mean/{}", "sd/{}", "interval/{}/0", "interval/{}/1")
        assert paths == [f"{own}/{part.format(name)}" for part in parts]
    assert [c["second"] for c in content.evaluation["comparisons"]] == arms[1:]
    kinds = ["auroc/", "auroc/p_adj", "by_patient/bal", "paired/bal", "by_patient/sens", "by_patient/spec"]
    for number, (arm, _, paths) in enumerate(grid(tree, "differences")):
        place = f"evaluation/comparisons/{arms[1:].index(arm)}/{kinds[number % 6]}"
        assert paths and all(path.startswith(place) for path in paths)
    for name, title, paths in grid(tree, "operating"):
        key = {"likelihood ratio, called positive": "lr_positive", "likelihood ratio, not called": "lr_negative"}
        place = "evaluation/arms/distilled/classifier/operating_point/" + key.get(name, name.split(",")[0].lower())
        part = {"value": "value", "films": "", "interval (Wilson)": "interval"}.get(title, "bootstrap")
        assert all(path.startswith(f"{place}/{part}") for path in paths)
    for row, column, paths in grid(tree, "confusion"):
        true, called = CLASSES.index(row), CLASSES.index(column.removeprefix("called "))
        assert paths == [f"evaluation/arms/distilled/confusion/{true}/{called}"]
    for row, column, paths in grid(tree, "calibration"):
        if paths and column != "best":
            assert {"intercept": "intercept", "slope": "slope", "Brier’s score": "brier"}.get(row, "ece_") in paths[0]
    for row, column, paths in grid(tree, "group-2"):
        if not row.startswith("gap"):
            at = ["F", "M"].index(row[0])
            metric = column.replace(" ", "_").replace("AUROC", "auroc_positive")
            place = f"evaluation/subgroups/attributes/sex/values/{at}/metrics/{metric}/"
            assert paths and all(path.startswith(place) for path in paths)
    assert [paths for *_, paths in grid(tree, "dd")] == [
        [f"evaluation/scores/{s}"] for s in ("hlr", "ior", "lrs", "ars")
    ]


def test_no_number_stands_without_its_place(tree):
    (main,) = tree.all("main")
    kept = [e for e in main.all("td", "dd", "p", "li", "figcaption", "h3") if DIGITS.search(e.unquoted())]
    assert [e.unquoted() for e in kept if "SHA-256" not in e.unquoted()] == []


def test_alternative_texts_say_no_number_that_the_page_does_not(tree):
    shown = {element.text() for element in tree.all("span") if "data-value" in element.attributes}
    figures = [image for figure in tree.all("figure") for image in figure.all("img")]
    told = {number for image in figures for number in re.findall(r"−?\d[\d.]*\d|\d", image.attributes["alt"])}
    assert len(told) > 5 and told <= shown


def test_texts_of_data_and_settings_are_escaped(page, tree, content):
    assert not list(tree.all("script")) and "<script" not in page
    assert {e.tag for e in tree.all()} <= {
        "html", "head", "meta", "title", "link", "style", "body", "a", "header", "p", "h1", "h2", "h3", "nav", "ul",
        "li", "main", "section", "div", "span", "table", "caption", "thead", "tbody", "tr", "th", "td", "br", "strong",
        "em", "figure", "figcaption", "img", "article", "dl", "dt", "dd", "details", "summary", "pre", "code", "footer",
    }  # fmt: skip
    assert not any(name.startswith("on") for e in tree.all() for name in e.attributes)
    text = tree.text()
    for told in (
        content.name,
        content.config,
        content.citation,
        "viral <script>alert()</script>",
        "only <b>covid</b>",
    ):
        assert told in text
    assert content.audit["checks"][1]["explanation"] in text


def test_nothing_comes_from_elsewhere(page, tree):
    for element in tree.all():
        for name in ("src", "href"):
            assert element.attributes.get(name, "#").startswith(("#", "data:")), element
    assert not re.search(r"url\(|@import|http-equiv|https?:", page)


def test_a_reader_without_eyes_finds_the_way(tree):
    (html,) = tree.all("html")
    assert html.attributes["lang"] == "en" and len(list(tree.all("title"))) == 1
    assert [len(list(tree.all(tag))) for tag in ("header", "nav", "main", "footer", "h1")] == [1] * 5
    levels = [int(e.tag[1]) for e in tree.all("h1", "h2", "h3", "h4")]
    assert levels[0] == 1 and all(after - before <= 1 for before, after in pairwise(levels))
    ids = [e.attributes["id"] for e in tree.all() if "id" in e.attributes]
    assert len(set(ids)) == len(ids)
    links = [e.attributes["href"][1:] for e in tree.all("a")]
    assert links[0] == "main" and set(links) <= set(ids)
    for element in tree.all():
        assert element.attributes.get("aria-labelledby", ids[0]) in ids
    for table in tree.all("table"):
        assert [c.text().strip() != "" for c in table.all("caption")] == [True]
        assert all(th.attributes.get("scope") in ("row", "col") for th in table.all("th"))
        assert table.parent.attributes["tabindex"] == "0" and table.parent.attributes["role"] == "region"
        width = {sum(int(c.attributes.get("colspan", 1)) for c in row.all("td", "th")) for row in table.all("tr")}
        assert len(width) == 1, table.text()
    images = list(tree.all("img"))
    assert len(images) == 6 + 1 + 6 and all(image.attributes["alt"].strip() for image in images)


def contrast(one, other):
    """WCAG 2.2's contrast of two colours #rgb or #rrggbb."""

    def luminance(colour):
        digits = colour.lstrip("#")
        digits = "".join(2 * d for d in digits) if len(digits) == 3 else digits
        parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_every_ink_can_be_read_on_its_ground():
    palettes = re.findall(r":root \{(.*?)\}", (TEMPLATES / "style.css").read_text(), re.DOTALL)
    assert len(palettes) == 3 and contrast("#000", "#ffffff") == pytest.approx(21)
    for palette in palettes:
        colour = dict(re.findall(r"--([\w-]+): (#\w+)", palette))
        pairs = [(ink, ground) for ink in ("ink", "soft", "link") for ground in ("ground", "raised")]
        pairs += [(name, f"{name}-ground") for name in ("good", "bad", "open", "none")]
        for ink, ground in pairs:
            assert contrast(colour[ink], colour[ground]) >= 4.5, (ink, ground)


def section(tree, name):
    (found,) = [e for e in tree.all("section") if e.attributes["id"] == name]
    return found


def test_the_summary_is_three_sentences(tree):
    said = [" ".join(p.text().split()) for p in section(tree, "summary").all("p") if p.attributes["class"] == "lead"]
    assert len(said) == 3
    assert said[0] == (
        "From 12 345 films of 4 321 patients in the data set Toy \"><img src=x onerror=alert()>, "
        "6 synthetic images were distilled; they started from random noise, which shows no patient."
    )  # fmt: skip
    plain = re.sub(r"0\.\d\d \(0\.\d\d to 0\.\d\d\)", "X", said[1])
    assert plain == (
        "A classifier trained on them alone reaches a balanced accuracy of X on 360 films of 60 other patients; "
        "trained as long on real films instead, it reaches X on all training films and X on as many real films drawn "
        "at random (95 % "
        "intervals over patients in brackets)."
    )
    assert said[2] == (
        "Audit of what they may tell about patients: failed. At least one check found a leak: this set must not "
        "be released as it is. Not run: patient re-identification; membership inference; membership inference, experts."
    )


def test_patients_are_shown_in_no_way(shown_patients, page):
    tree = Reader(render(shown_patients)).root
    images = section(tree, "images")
    assert not list(images.all("img")) and "stay out of every report" in " ".join(images.text().split())
    assert "they started from real films of patients." in section(tree, "summary").text()
    assert "Stays in the house" not in page


def test_in_dp_mode_the_page_says_on_top_that_it_stays(content):
    tree = Reader(render(replace(content, private=True))).root
    (body,) = tree.all("body")
    banner = [e for e in body.children if isinstance(e, Element)][1]
    assert banner.tag == "aside" and "epsilon does not cover this page" in " ".join(banner.text().split())


def test_few_patients_are_not_counted(tree, page):
    """Seven of the holdout, four in a control, two in a group: no such number is told, not even in attributes."""
    assert "compared with films of fewer than ten other patients" in " ".join(section(tree, "privacy").text().split())
    assert "holdout_films" not in page
    assert "patients: fewer than ten" in page.replace('<span class="none">', "")
    assert "holdout_patients" not in page and "negative_control/patients" not in page
    groups = " ".join(section(tree, "subgroups").text().split())
    assert "withheld: fewer than 10 patients here or in a group" in groups


def few_positives(content, positive, negative):
    """The same classifier of so many test patients with and without the positive class."""
    found = json.loads(json.dumps(content.evaluation))
    one = found["arms"]["distilled"]["classifier"]
    one["positive_patients"], one["positive_films"] = positive, 3 * positive
    for name, patients in {"sensitivity": positive, "specificity": negative, "ppv": 50, "npv": 50}.items():
        one["operating_point"][name]["patients"] = patients
    return replace(content, evaluation=found, few=CLASSES[:2])


@pytest.mark.parametrize(("positive", "negative"), [(3, 57), (57, 3)])
def test_films_of_few_patients_are_not_counted(content, positive, negative):
    """Neither they nor their complement, from which they could be computed; the third class may be counted."""
    text = render(few_positives(content, positive, negative))
    clinical = " ".join(section(Reader(text).root, "clinical").text().split())
    assert "How many of them are with covid is withheld" in clinical and clinical.count("withheld") == 5
    assert not any(
        name in text for name in ("positive_films", "positive_patients", "/hits", "confusion/0", "confusion/1")
    )
    assert text.count("/confusion/2") == 3 and "withheld: fewer than ten patients here or in a class" in text


def test_counts_of_many_patients_are_shown(content):
    text = render(replace(few_positives(content, 30, 30), few=()))
    clinical = " ".join(section(Reader(text).root, "clinical").text().split())
    assert "90 films of 30 patients are with covid." in clinical and "withheld" not in clinical
    assert text.count("/hits") == 4 and text.count("/confusion/") == 9


def test_every_dash_in_a_table_is_explained(content):
    found = json.loads(json.dumps(content.evaluation))
    found["comparisons"][0]["auroc"]["p_adjusted"] = None
    parts = list(Reader(render(replace(content, evaluation=found))).root.all("section"))
    dashed = [region for part in parts for region in part.all("div") if "–" in {e.text() for e in region.all("span")}]
    notes = [p.text() for part in parts for p in part.all("p") if p.attributes.get("class") == "note dash"]
    assert len(notes) == len(dashed) >= 4 and all(note.startswith("–: ") for note in notes)
    assert "–: the films tell no variance of the difference, so there is no p value; read the interval." in notes
    assert not any("no p value" in p.text() for p in Reader(render(content)).root.all("p"))


def test_limits_come_from_what_was_measured(content, tree):
    limits = " ".join(section(tree, "limits").text().split())
    assert "Of site only <b>covid</b> the test films hold covid alone or none of it" in limits
    assert "4 files of the source could not be used" in limits and "Not recorded, so not looked at: view." in limits
    assert "By age band, groups of few patients are withheld (fewer than 10)" in limits
    assert "There is no mathematical guarantee" in limits and "“Cannot tell” is no acquittal" in limits
    assert "anonymous" not in tree.text().lower()
    passed = [check | {"verdict": "pass"} for check in content.audit["checks"]]
    calm = " ".join(Reader(render(replace(content, audit=content.audit | {"checks": passed}))).root.text().split())
    assert "There is no mathematical guarantee" not in calm and "no acquittal" not in calm


def test_without_baselines_and_groups_the_page_says_what_is_missing(content):
    bare = content.evaluation | {"comparisons": [], "subgroups": None, "scores": None}
    bare["arms"] = {"distilled": content.evaluation["arms"]["distilled"]}
    tree = Reader(render(replace(content, evaluation=bare))).root
    text = " ".join(tree.text().split())
    assert "There is no comparison with training on the full data" in text and "no group could be looked at" in text
    assert "trained as long" not in text and "Not computed" in text
    benchmark = Reader(render(replace(content, unit="images"))).root
    assert "each image counts as a patient of its own" in section(benchmark, "limits").text()
    assert "each image counts" not in text and "From 12 345 images of" in " ".join(benchmark.text().split())


def test_other_networks_have_a_table_of_their_own(content):
    own = {"lr": 0.01, "mean": {"balanced_accuracy": 0.61}, "sd": {"balanced_accuracy": 0.02}, "fails": False}
    own["interval"] = {"balanced_accuracy": [0.5, 0.7]}
    lost = {"lr": 0.01, "mean": None, "sd": None, "interval": None, "fails": True}
    rows = {"vit:32": {"parameters": 12345, "at_alpha": lost, "chosen": own}}
    rows["alexnet"] = {"parameters": 5, "at_alpha": own, "chosen": None}
    tree = Reader(
        render(replace(content, evaluation=content.evaluation | {"architectures": {"architectures": rows}}))
    ).root
    cells = list(grid(tree, "architectures"))
    place = "evaluation/architectures/architectures/vit:32"
    measured = ["mean/balanced_accuracy", "sd/balanced_accuracy", "interval/balanced_accuracy/0"]
    assert [paths for *_, paths in cells[:4]] == [
        [f"{place}/parameters"],
        [f"{place}/at_alpha/lr"],
        [],
        [f"{place}/chosen/lr"],
    ]
    assert cells[4][2][:3] == [f"{place}/chosen/{part}" for part in measured]
    text = section(tree, "results").text()
    assert text.count("fails on validation patients") == 1 and "0.610 ± 0.020" in text
    assert "others were not measured" not in section(tree, "limits").text()


def test_a_method_without_experts_says_what_it_reads(content):
    made = {"method": "DM", "reads": "mean features of the films", "iterations": 5, "selected": "last iteration"}
    other = replace(content, record=content.record | {"method": made}, history={"loss": [3.0, 2.0]})
    section = next(part for part in Reader(render(other)).root.all() if part.attributes.get("id") == "training")
    told = " ".join(section.text().split())
    assert "Method DM. What it takes from the films: mean features of the films. What stopped it" in told
    assert "The loss went from 3.000 to 2.000 in 5 iterations." in told and "alpha" not in told
