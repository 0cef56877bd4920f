"""The figures of pipelines/multi_index.py."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
from multi_index_table import THRESHOLD, needed, problems

from medistill.report.figure import COLOURS, STYLES, new_figure, save_figure, tidy

VARIED = {"d": "dimensions d", "r": "directions r", "L": "width L", "algorithm": "algorithm"}
MARKERS = "osD^"
TICKS, LIMITS = (20, 50, 100, 200, 500), (14, 650)


def draw(rows: Sequence[dict], noise: float, folder: Path) -> None:
    """Write multi_index_energy.png and multi_index_error.png, by what is varied, and multi_index_needed.png."""
    first = rows[0]
    above, below = new_figure(10.5, 3.1), new_figure(10.5, 3.1)
    for column, (varied, title) in enumerate(VARIED.items()):
        fixed = [name for name in VARIED if name != varied]
        shown = [row for row in rows if all(row[name] == first[name] for name in fixed)]
        over, under = (figure.add_subplot(1, len(VARIED), column + 1) for figure in (above, below))
        for number, value in enumerate(sorted({row[varied] for row in shown})):
            some = [row for row in shown if row[varied] == value]
            style = {"color": COLOURS[number], "linestyle": STYLES[number], "marker": MARKERS[number]}
            label = value if varied == "algorithm" else f"{varied} = {value}"
            curve(over, some, "energy", **style, label=label)
            over.axhline(some[0]["r"] / some[0]["d"], color=COLOURS[number], linestyle="dotted", linewidth=1)
            curve(under, some, "distilled", **style)
            curve(under, some, "random real", color=COLOURS[number], linestyle="none", marker="x", alpha=0.6)
            under.axvline(some[0]["line"], color=COLOURS[number], linestyle="dotted", linewidth=1)
            under.axhline(some[0]["all real"]["mean"], color=COLOURS[number], linewidth=0.8)
        over.set(title=f"{title} varied", ylim=(0, 1.02))
        over.legend(fontsize=7, loc="lower right")
        under.set(title=f"{title} varied", yscale="log")
        under.axhline(noise, color="#777777", linestyle="dashed", linewidth=1)
        for panel, name in ((over, "energy in row(B)"), (under, "test error")):
            panel.set(xlabel="stored floats M (d + 1)", ylabel=name if column == 0 else "")
            floats_along(panel)
            tidy(panel)
    others = ", ".join(f"{name} = {first[name]}" for name in VARIED if name != "algorithm")
    told = f"Others: {others}, algorithm {first['algorithm']}; bars: sd over seeds; "
    above.suptitle(f"{told}dotted: chance r / d.", fontsize=8)
    lines = "dotted: r²d + L; thin: all real samples; dashed: noise floor."
    below.suptitle(f"{told}colours as in the energy's figure;\ncrosses: random real samples; {lines}", fontsize=8)
    save_figure(above, folder / "multi_index_energy.png")
    save_figure(below, folder / "multi_index_error.png")
    draw_needed(rows, folder / "multi_index_needed.png")


def floats_along(panel: Axes) -> None:
    """A logarithmic axis with numbers written out."""
    panel.set_xscale("log")
    panel.set_xlim(*LIMITS)
    panel.xaxis.set_major_locator(FixedLocator(TICKS))
    panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    panel.xaxis.set_minor_locator(NullLocator())


def curve(panel: Axes, rows: Sequence[dict], name: str, **style: object) -> None:
    """Mean and standard deviation over seeds, over stored floats."""
    means, deviations = ([row[name][part] or 0.0 for row in rows] for part in ("mean", "sd"))
    panel.errorbar([row["floats"] for row in rows], means, yerr=deviations, capsize=3, markersize=5, **style)


def draw_needed(rows: Sequence[dict], path: Path) -> None:
    """Floats that each problem needed against r^2 d + L."""
    figure = new_figure(6.2, 4.6)
    panel = figure.add_subplot()
    lines = []
    for number, (name, some) in enumerate(problems(rows).items()):
        x, y = some[0]["line"], needed(some)
        lines.append(x)
        style = {"color": COLOURS[number % len(COLOURS)], "marker": MARKERS[number % len(MARKERS)], "linestyle": "none"}
        panel.plot([x], [y], **style, label=name if y == y else f"{name}: not read off")
    ends = [min(lines) / 1.3, max(lines) * 1.3]
    panel.plot(ends, ends, color="#777777", linestyle="dotted", label="r²d + L floats")
    panel.set(xlabel="r²d + L", ylabel=f"stored floats at a test error of {THRESHOLD:g}", yscale="log")
    floats_along(panel)
    panel.set(xlim=ends)
    panel.yaxis.set_major_locator(FixedLocator(TICKS))
    panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    panel.yaxis.set_minor_locator(NullLocator())
    panel.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    tidy(panel)
    save_figure(figure, path)
