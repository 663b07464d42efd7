"""A record as a figure: what each tool costs in forward passes, growth on logarithmic axes, memory."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

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
    """The figure of a run, from its record alone."""
    across = [point for point in record["points"] if point["group"] == "networks"]
    bars = sum(len(_shown(record, point, "guided")) for point in across) + len(across)
    height = max(3.2, 0.2 * bars)
    figure = Figure(figsize=(15, height + 4.6), layout="constrained")
    top, bottom = figure.subfigures(2, 1, squeeze=False, height_ratios=[height + 0.6, 4.0], hspace=0.04)[:, 0]
    panels = top.subplots(1, 3, gridspec_kw={"width_ratios": [1.25, 1, 1]})
    for axes, task in zip(panels, ("guided", "guided_gradcam", "all"), strict=True):
        _costs(axes, record, across, task)
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


def _legend(figure: object, record: Record) -> None:
    from matplotlib.patches import Patch

    keys = [key for key in SHOWN if key in record["labels"]]
    handles = [Patch(color=COLOURS[key], label=record["labels"][key]) for key in keys]
    figure.legend(handles=handles, loc="outside upper left", ncols=len(keys), frameon=False, fontsize=10)  # type: ignore[attr-defined]


# --- Costs ---------------------------------------------------------------------------------------------------------------


def _costs(axes: Axes, record: Record, points: Sequence[Point], task: str) -> None:
    """Bars of each network's tools, in forward passes; what was not timed has its word in place of a bar."""
    place, ticks, names, highest = 0.0, [], [], 1.0
    for point in points:
        forward, start = median(point["reference"].get("forward", [])), place
        for key in _shown(record, point, task):
            run = timing(point, task, key)
            seconds = None if run is None else median(run["seconds"])
            if run is None:
                continue
            if seconds is None or forward is None:
                axes.text(0.05, place, run["word"], va="center", fontsize=7.5, color=COLOURS[key], style="italic")
            else:
                passes = seconds / forward
                highest = max(highest, passes)
                axes.barh(place, passes, height=0.86, color=COLOURS[key])
                axes.text(passes, place, f" {short(passes)}", va="center", fontsize=7.5, color=INK)
            place += 1
        if place > start:
            ticks.append((start + place - 1) / 2)
            names.append(f"{point['network']}\nbatch {point['batch']}")
            place += 1
    axes.set(xlim=(0, highest * 1.12), ylim=(max(place - 1, 1) - 0.4, -0.6), yticks=ticks)
    axes.set_yticklabels(names)
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
    axes.xaxis.set_major_locator(FixedLocator(values))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:.0f}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:,g}"))


def _apart(values: Sequence[float], axes: Axes) -> list[float]:
    """Places for labels beside ``values``, in order, none closer to the one below than a line of text."""
    low, high = (math.log10(limit) for limit in axes.get_ylim())
    least, found = 0.075 * (high - low), list[float]()
    for value in values:
        found.append(max(value, found[-1] + least) if found else value)
    return found


# --- Memory --------------------------------------------------------------------------------------------------------------


def _memory(axes: Axes, record: Record) -> None:
    peaks = [peak for peak in record["memory"] if peak["task"] == "guided" and peak["mib"] is not None]
    peaks.sort(key=lambda peak: peak["mib"] or 0)
    names = []
    for place, peak in enumerate(peaks):
        mib, key = peak["mib"] or 0, peak["contender"]
        axes.barh(place, mib, height=0.7, color=COLOURS[key])
        axes.text(mib, place, f" {short(mib)}", va="center", fontsize=8.5, color=INK)
        names.append(
            record["labels"][key].removeprefix("relume, ") + (f"\nbatch {peak['batch']}" if peak["batch"] == 1 else "")
        )
    axes.set(yticks=range(len(peaks)), xlim=(0, 1.2 * max((peak["mib"] or 0 for peak in peaks), default=1)))
    axes.set_yticklabels(names)
    axes.invert_yaxis()
    axes.set_xlabel("MiB above the loaded model", fontsize=9, color=INK)
    first = peaks[0] if peaks else None
    _clean(axes, f"Peak memory, {first['network']}, batch {first['batch']}" if first else "Peak memory")
