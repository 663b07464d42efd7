"""A record as a figure: what each tool costs in forward passes, growth on logarithmic axes, memory."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator

from benchmarks.performance.record import Point, Record, median, timing
from benchmarks.performance.report import GROUPS, TITLES, short

__all__ = ["COLOURS", "draw"]

# Okabe and Ito's colours, told apart by everyone: relume is cool, its peers are warm.
COLOURS = {
    "prepared": "#0072b2",
    "relume": "#56b4e9",
    "lean": "#009e73",
    "bfloat16": "#004466",
    "captum": "#d55e00",
    "grad-cam": "#e69f00",
    "zennit": "#8c6d5a",
}
INK, FAINT = "#333333", "#dddddd"
SHOWN = ("prepared", "relume", "captum", "grad-cam", "zennit")
AXES = {"batch": "images in the batch", "side": "side of the image, pixels", "depth": "layers"}


def draw(record: Record) -> Figure:
    """Draw the figure of a run, from its record alone."""
    across = [point for point in record["points"] if point["group"] == "networks"]
    slots = max((len(_shown(record, point, "guided")) for point in across), default=0) + 0.8
    height = max(3.2, 0.19 * slots * len(across))
    figure = Figure(figsize=(15, height + 4.8), layout="constrained")
    top, bottom = figure.subfigures(2, 1, squeeze=False, height_ratios=[height + 0.8, 4.0], hspace=0.05)[:, 0]
    panels = top.subplots(1, 3, sharey=True)
    for axes, task in zip(panels, ("guided", "guided_gradcam", "all"), strict=True):
        _costs(axes, record, across, task, slots)
    panels[0].set(ylim=(slots * len(across), 0), yticks=[slots * (i + 0.5) for i in range(len(across))])
    panels[0].set_yticklabels([f"{point['network']}\nbatch {point['batch']}" for point in across])
    rest = bottom.subplots(1, 4)
    for axes, group in zip(rest, GROUPS, strict=False):
        _growth(axes, record, group)
    _memory(rest[-1], record)
    _legend(top, record)
    return figure


def _shown(record: Record, point: Point, task: str) -> list[str]:
    return [key for key in SHOWN if key in record["labels"] and timing(point, task, key)]


def _clean(axes: Axes, title: str) -> None:
    axes.set_title(title, loc="left", fontsize=11, color=INK, fontweight="bold")
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(FAINT)
    axes.tick_params(colors=INK, labelsize=8.5, length=0)


def _legend(figure: SubFigure, record: Record) -> None:
    keys = [key for key in SHOWN if key in record["labels"]]
    handles = [Patch(color=COLOURS[key], label=record["labels"][key]) for key in keys]
    figure.legend(handles=handles, loc="outside upper left", ncols=len(keys), frameon=False, fontsize=10)


# --- Costs ---------------------------------------------------------------------------------------------------------------


def _costs(axes: Axes, record: Record, points: Sequence[Point], task: str, slots: float) -> None:
    """Bars of each network's tools, in forward passes; what was not timed has its word in place of a bar."""
    highest = 1.0
    for i, point in enumerate(points):
        forward, keys = median(point["reference"].get("forward", [])), _shown(record, point, task)
        for j, key in enumerate(keys):
            place = slots * (i + 0.5) + j - (len(keys) - 1) / 2
            run = timing(point, task, key)
            seconds = median(run["seconds"]) if run is not None else None
            if run is not None and (seconds is None or forward is None):
                words = f" {record['labels'][key]}: {run['word']}"
                axes.text(0, place, words, va="center", fontsize=7.5, color=COLOURS[key], style="italic")
            elif seconds is not None and forward is not None:
                highest = max(highest, seconds / forward)
                axes.barh(place, seconds / forward, height=0.86, color=COLOURS[key])
                axes.text(seconds / forward, place, f" {short(seconds / forward)}", va="center", fontsize=7.5, color=INK)
    axes.set_xlim(0, highest * 1.12)
    axes.set_xlabel("forward passes of the plain network", fontsize=9, color=INK)
    axes.axvline(1, color=INK, linewidth=0.6, linestyle=(0, (3, 3)), zorder=0)
    _clean(axes, TITLES[task])


# --- Growth --------------------------------------------------------------------------------------------------------------


def _along(point: Point, group: str) -> int:
    return {"batch": point["batch"], "side": point["side"], "depth": point["layers"]}[group]


def _growth(axes: Axes, record: Record, group: str) -> None:
    """Milliseconds per image along one dimension, each line named at its end."""
    points = sorted((p for p in record["points"] if p["group"] == group), key=lambda p: _along(p, group))
    ends: list[tuple[float, str]] = []
    for key in SHOWN:
        timed = [(p, timing(p, "guided", key)) for p in points]
        line = [
            (_along(p, group), 1000 * m) for p, run in timed if run is not None and (m := median(run["seconds"])) is not None
        ]
        if line:
            xs, ys = zip(*line, strict=True)
            axes.plot(xs, ys, marker="o", markersize=4, linewidth=1.8, color=COLOURS[key])
            ends.append((ys[-1], key))
    axes.set(xscale="log", yscale="log")
    _ticks(axes, [_along(p, group) for p in points])
    for (_, key), y in zip(sorted(ends), _apart([math.log10(y) for y, _ in sorted(ends)], axes), strict=True):
        axes.annotate(
            record["labels"][key].removeprefix("relume, "),
            (1.02, 10**y),
            xycoords=("axes fraction", "data"),
            fontsize=8.5,
            color=COLOURS[key],
            va="center",
        )
    axes.set_xlabel(AXES[group], fontsize=9, color=INK)
    network = points[0]["network"] if points and group != "depth" else "ResNets"
    axes.set_ylabel("ms per image", fontsize=9, color=INK)
    axes.grid(visible=True, color=FAINT, linewidth=0.6)
    _clean(axes, f"{GROUPS[group]}, {network}")


def _ticks(axes: Axes, values: Sequence[int]) -> None:
    axes.xaxis.set_major_locator(FixedLocator(sorted(set(values))))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:.0f}"))
    low, high = axes.get_ylim()
    axes.set_ylim(low / 1.25, high * 1.25)  # room for the marks at the ends, and never a decade of noise alone
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high > 10 * low else (1, 1.5, 2, 3, 4, 5, 6, 8)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:,g}"))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_minor_locator(NullLocator())


def _apart(values: Sequence[float], axes: Axes) -> list[float]:
    """Places for labels beside ``values``, in order, none closer to the next than a line of text, and none above the axes."""
    low, high = (math.log10(limit) for limit in axes.get_ylim())
    line, found = 0.075 * (high - low), list[float]()
    for value in values:
        found.append(max(value, found[-1] + line) if found else value)
    for i in reversed(range(len(found))):
        found[i] = min(found[i], high - line * (len(found) - i - 0.5))
    return found


# --- Memory --------------------------------------------------------------------------------------------------------------


def _memory(axes: Axes, record: Record) -> None:
    found = [(m, peak) for peak in record["memory"] if peak["task"] == "guided" and (m := median(peak["mib"])) is not None]
    found.sort(key=lambda pair: pair[0])
    most = max((peak["batch"] for _, peak in found), default=0)
    names = []
    for place, (mib, peak) in enumerate(found):
        key = peak["contender"]
        axes.barh(place, mib, height=0.7, color=COLOURS[key])
        axes.text(mib, place, f" {short(mib)}", va="center", fontsize=8.5, color=INK)
        names.append(
            record["labels"][key].removeprefix("relume, ") + (f"\nbatch {peak['batch']}" if peak["batch"] < most else "")
        )
    axes.set(yticks=range(len(found)), xlim=(0, 1.2 * max((mib for mib, _ in found), default=1)))
    axes.set_yticklabels(names)
    axes.set_ylim(max(len(found), 4) - 0.5, -0.5)
    where = f"\n{found[0][1]['network']}, batch {most}" if found else ""
    axes.set_xlabel(f"MiB above the loaded model{where}", fontsize=9, color=INK)
    _clean(axes, "Peak memory, guided")
