"""The table of pipelines/benchmark.py as JSON, CSV, Markdown and a figure, published figures beside ours."""

import csv
import io
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from importance_table import matrix, same, spread

from medistill.evaluate.compare import holm, paired
from medistill.files import plain, write_json, write_text
from medistill.report.figure import COLOURS, new_figure, save_figure, tidy

START, FULL = "the start images", "full data"
COLUMNS = (
    "data", "ipc", "arm", "images", "sets", "networks", "accuracy", "sd_networks", "sd_sets", "step",
    "minus_start", "low", "high", "p", "p_adjusted", "beats_its_start", "published", "marks",
)  # fmt: skip


HEAD = ("trained on", "accuracy", "step", "minus its start [95 %], p (Holm)", "beats its start", "published", "marks")


def write_tables(place: Path, plan: Mapping, found: Sequence[tuple[str, str, dict]]) -> None:
    """Write PLACE.json, .csv, .md and .png."""
    lines = table(plan, found)
    machine = f"{platform.machine()}, torch {torch.__version__}, {plan['machine']}"
    head = {"command": "python pipelines/benchmark.py", "plan": plan, "machine": machine}
    write_json(place.with_suffix(".json"), plain(head | {"rows": lines}))
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: _short(value) for key, value in line.items()} for line in lines)
    write_text(place.with_suffix(".csv"), text.getvalue())
    write_text(place.with_suffix(".md"), markdown(plan, lines))
    figure(lines, place.with_suffix(".png"))


def table(plan: Mapping, found: Sequence[tuple[str, str, dict]]) -> list[dict]:
    """A line of each arm at each place; a method's differences to its start images are paired over seeds."""
    seeds: dict[tuple[str, str], list[dict]] = {}
    for where, arm, row in found:
        if arm != FULL:
            seeds.setdefault((where, arm), []).append(row)
        elif not any(other.split("/")[0] == where.split("/")[0] for other, name in seeds if name == FULL):
            seeds[where, FULL] = [row]  # the same at every budget and distillation seed
    lines = []
    for (where, arm), runs in seeds.items():
        data, ipc = where.split("/")
        accuracy = matrix(runs, "accuracy")
        method = plan["methods"].get(arm, {})
        line = {
            "data": data,
            "ipc": "" if arm == FULL else int(ipc),
            "arm": arm,
            "images": runs[0]["images"],
            "sets": len(runs),
            "networks": accuracy.shape[1],
            "accuracy": float(accuracy.mean()),
            "balanced_accuracy": float(matrix(runs, "balanced_accuracy").mean()),
            "sd_networks": float(accuracy.std(1, ddof=1).mean()),
            "sd_sets": spread(accuracy.mean(1)),
            "step": runs[0].get(method.get("tune")),
            "validation_by_step": runs[0].get("validation_by_step"),
            "published": plan["published"].get(where, {}).get(arm),
            "marks": f"{plan['marks_of_all']}{method.get('marks', '')}" if arm in plan["methods"] else "",
        }
        if arm in plan["methods"] and (where, START) in seeds:
            gap = paired(*same(accuracy, matrix(seeds[where, START], "accuracy")))
            line |= {"minus_start": gap.difference, "low": gap.low, "high": gap.high, "p": gap.p, "paired": asdict(gap)}
        lines.append(line)
    compared = [line for line in lines if "p" in line]
    for line, p in zip(compared, holm([line["p"] for line in compared]), strict=True):
        line["p_adjusted"] = p
        line["beats_its_start"] = "yes" if line["low"] > 0 else "no" if line["high"] <= 0 else "not shown"
    return lines


def markdown(plan: Mapping, lines: Sequence[Mapping]) -> str:
    """A table of each place, and what the marks mean."""
    parts = []
    for where in dict.fromkeys((line["data"], line["ipc"]) for line in lines if line["ipc"] != ""):
        here = [line for line in lines if (line["data"], line["ipc"]) == where]
        full = [line for line in lines if line["data"] == where[0] and line["ipc"] == ""][:1]
        ranked = sorted(here, key=lambda line: -line["accuracy"])
        body = "\n".join(_cells(line) for line in [*full, *ranked])
        title = f"{where[0]}, {where[1]} image{'s' * (where[1] > 1)} a class"
        parts.append(f"{title}:\n\n| {' | '.join(HEAD)} |\n|{'---|' * len(HEAD)}\n{body}\n")
    marks = "\n".join(f"- {mark}: {text}" for mark, text in plan["marks"].items())
    return "\n".join(parts) + f"\nHow the published figures differ from ours:\n\n{marks}\n"


def _cells(line: Mapping) -> str:
    sets = "" if line["sd_sets"] is None else f" ({line['sd_sets']:.3f})"
    gap = ""
    if "p" in line:
        gap = f"{line['minus_start']:+.3f} [{line['low']:+.3f}, {line['high']:+.3f}], "
        gap += f"{line['p']:.2g} ({line['p_adjusted']:.2g})"
    cells = (
        line["arm"],
        f"{line['accuracy']:.3f} ± {line['sd_networks']:.3f}{sets}",
        "" if line["step"] is None else f"{line['step']:g}",
        gap,
        line.get("beats_its_start", ""),
        "" if line["published"] is None else f"{line['published']:.1f}",
        line["marks"],
    )
    return f"| {' | '.join(cells)} |"


def figure(lines: Sequence[Mapping], path: Path) -> None:
    """A panel of each place: every arm's accuracy with the spread over its networks, the start images as a line."""
    places = list(dict.fromkeys((line["data"], line["ipc"]) for line in lines if line["ipc"] != ""))
    if not places:
        return
    drawn = new_figure(4 * len(places), 4.5)
    for number, where in enumerate(places):
        here = [line for line in lines if (line["data"], line["ipc"]) == where]
        here.sort(key=lambda line: line["accuracy"])
        panel = drawn.add_subplot(1, len(places), number + 1)
        methods = [COLOURS[0] if "p" in line else COLOURS[4] for line in here]
        panel.barh(range(len(here)), [line["accuracy"] for line in here], xerr=[line["sd_networks"] for line in here],
                   color=methods, ecolor="#333333")  # fmt: skip
        panel.set_yticks(range(len(here)), [line["arm"] for line in here], fontsize=8)
        for line in here:
            if line["arm"] == START:
                panel.axvline(line["accuracy"], color="#333333", linewidth=1, linestyle="dashed")
        panel.set_title(f"{where[0]}, {where[1]} a class", fontsize=10)
        panel.set_xlabel("accuracy; bars: sd over networks")
        tidy(panel)
    save_figure(drawn, path)


def _short(value: object) -> object:
    return f"{value:.6g}" if isinstance(value, float) else value
