"""A record as Markdown: what was asked and measured, then every figure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from benchmarks.performance.contenders import TASKS
from benchmarks.performance.record import Peak, Point, Record, Timing, fastest_peer, gemm_rate, median, quartiles, timing
from benchmarks.performance.targets import TARGETS, Target, slowest

__all__ = ["GROUPS", "TITLES", "insert", "markdown", "short"]

TITLES = {
    "guided": "Guided backpropagation",
    "guided_gradcam": "Guided Grad-CAM",
    "all": "All five methods together",
    "recipe": "The recipe's four methods together",
}
assert TITLES.keys() == TASKS.keys()
GROUPS = {"batch": "Batch", "side": "Side", "depth": "Depth"}
START, END = "<!-- measured: python -m benchmarks.performance writes what follows -->\n", "<!-- end of what was measured -->"


def markdown(record: Record) -> str:
    """Return the tables of a run, from its record alone."""
    parts = [_machine(record), "## Asked and measured", _targets(record)]
    across = [point for point in record["points"] if point["group"] == "networks"]
    for task, title in TITLES.items():
        points = [point for point in across if any(run["task"] == task for run in point["runs"])]
        if points:
            parts += [f"## {title}", _across(record, points, task)]
    parts += ["## Growth", _growth(record), "## Memory", _memory(record), "## Import", _imports(record)]
    parts += ["## Every figure", _every(record, across)]
    return "\n\n".join(part for part in parts if part) + "\n"


def insert(page: str, tables: str, marks: tuple[str, str] = (START, END)) -> str:
    """``page`` with ``tables`` between its two marks.

    Raises:
        ValueError: a mark is missing.
    """
    before, start, rest = page.partition(marks[0])
    _, end, after = rest.partition(marks[1])
    if not (start and end):
        raise ValueError(f"the page has no place for the tables: it needs the lines {marks[0].strip()!r} and {marks[1]!r}")
    return f"{before}{start}\n{tables}\n{end}{after}"


# --- Cells ---------------------------------------------------------------------------------------------------------------


def short(value: float) -> str:
    """Three digits, without an exponent."""
    if not math.isfinite(value):
        return "–"
    digits = 2 - math.floor(math.log10(abs(value))) if value else 0
    return f"{value:,.{min(max(digits, 0), 3)}f}"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _ms(seconds: list[float]) -> str:
    low, high = quartiles(seconds)
    return f"{short(1000 * (median(seconds) or 0))} ({short(1000 * low)}–{short(1000 * high)})"


def _forward(point: Point) -> float:
    return median(point["reference"].get("forward", [])) or math.nan


# --- Parts ---------------------------------------------------------------------------------------------------------------


def _machine(record: Record) -> str:
    m, versions = record["machine"], ", ".join(f"{package} {number}" for package, number in record["versions"].items())
    bf16 = "with" if m["avx512_bf16"] else "without"
    device = "" if m["device"] == "cpu" else f"{m['device']}, beside "
    return (
        f"{device}{m['cpu']}, {m['cores']} cores, {bf16} AVX512-BF16, {m['threads']} threads, {m['memory_gib']} GiB, "
        f"{m['system']}; Python {m['python']}, {versions}. Times are medians of interleaved rounds in one process, per image; "
        "ratios are of medians."
    )


def _targets(record: Record) -> str:
    point = next((p for p in record["points"] if p["group"] == "networks" and p["network"] == "resnet50"), None)
    where = (
        ""
        if point is None
        else f"ResNet-50 at {point['side']}, batch {point['batch']} unless said; the targets are for batch 8.\n\n"
    )

    def row(target: Target) -> list[str]:
        found = {face: value for face in target.faces if (value := target.measure(record, face)) is not None}
        judged = found.get(target.faces[-1])
        verdict = "not measured" if judged is None else "yes" if target.met(judged) else "**no**"
        plain = short(found["relume"]) if "relume" in found else ""
        prepared = "" if judged is None else short(judged)
        return [target.text, f"{'≥' if target.at_least else '≤'} {target.limit:g}", plain, prepared, verdict]

    table = _table(["asked", "", "relume", "prepared", "met"], map(row, TARGETS))
    lowest = {face: slowest(record, face) for face in ("relume", "prepared")}
    said = [
        f"{face}: {network}, {TITLES[task].lower()}" for face, found in lowest.items() if found for _, network, task in [found]
    ]
    return where + table + (f"\n\nThe lowest ratio to the fastest peer is that of {'; of '.join(said)}." if said else "")


def _across(record: Record, points: Sequence[Point], task: str) -> str:
    """Networks by tools: times in forward passes."""
    keys = [key for key in record["labels"] if any(timing(point, task, key) for point in points)]
    head = ["network", "batch", "forward, ms", *(record["labels"][key] for key in keys)]
    ours = [key for key in keys if key not in record["peers"]]
    head += [f"fastest peer / {record['labels'][key]}" for key in ours if key in ("relume", "prepared")]

    def cell(point: Point, key: str) -> str:
        run = timing(point, task, key)
        if run is None:
            return ""
        return run["word"] or short((median(run["seconds"]) or math.nan) / _forward(point))

    def row(point: Point) -> list[str]:
        cells = [point["network"], str(point["batch"]), short(1000 * _forward(point)), *(cell(point, key) for key in keys)]
        return cells + [_ratio(record, point, timing(point, task, key)) for key in ours if key in ("relume", "prepared")]

    note = "Times in forward passes of the plain network without a graph, which takes as long per image as its column says."
    return f"{note}\n\n{_table(head, map(row, points))}"


def _ratio(record: Record, point: Point, run: Timing | None) -> str:
    """How many times faster than the fastest right peer."""
    best = None if run is None else fastest_peer(record, point, run["task"])
    own = None if run is None else median(run["seconds"])
    return "" if best is None or own is None else short(best[1] / own)


def _growth(record: Record) -> str:
    parts = []
    for group, title in GROUPS.items():
        points = [point for point in record["points"] if point["group"] == group]
        if not points:
            continue
        keys = [key for key in record["labels"] if any(timing(point, "guided", key) for point in points)]
        ours = [key for key in keys if key not in record["peers"]]

        def cell(point: Point, key: str) -> str:
            run = timing(point, "guided", key)
            return "" if run is None else run["word"] or _ms(run["seconds"])

        rows = [
            [
                point["network"],
                str(point["batch"]),
                str(point["side"]),
                *(cell(point, key) for key in keys),
                *(_ratio(record, point, timing(point, "guided", key)) for key in ours),
            ]
            for point in points
        ]
        head = ["network", "batch", "side", *(f"{record['labels'][key]}, ms" for key in keys)]
        head += [f"fastest peer / {record['labels'][key]}" for key in ours]
        parts.append(f"{title}, guided backpropagation, per image:\n\n{_table(head, rows)}")
    return "\n\n".join(parts)


def _memory(record: Record) -> str:
    captum = {(p["network"], p["task"], p["batch"]): median(p["mib"]) for p in record["memory"] if p["contender"] == "captum"}

    def row(peak: Peak) -> list[str]:
        mib, base = median(peak["mib"]), captum.get((peak["network"], peak["task"], peak["batch"]))
        shown = peak["word"] if mib is None else f"{short(mib)} ({short(min(peak['mib']))}–{short(max(peak['mib']))})"
        ratio = short(mib / base) if mib is not None and base else ""
        return [peak["network"], TITLES[peak["task"]], record["labels"][peak["contender"]], str(peak["batch"]), shown, ratio]

    head = ["network", "", "", "batch", "MiB above the loaded model (range)", "of Captum's"]
    return _table(head, map(row, record["memory"]))


def _imports(record: Record) -> str:
    rows = []
    for found in record["imports"]:
        taken, bare = median(found["seconds"]) or math.nan, median(found["bare"]) or math.nan
        loads = "yes" if found["loads_torch"] else "no"
        rows.append([f"`import {found['package']}`", short(taken), short(bare), short(taken - bare), loads])
    return _table(["", "seconds", "bare interpreter", "above it", "loads torch"], rows)


def _every(record: Record, points: Sequence[Point]) -> str:
    """Each point's runs, with spread, ratios, share and error."""
    parts = []
    for point in points:
        rate = gemm_rate(point)
        rows = []
        for run in point["runs"]:
            name = [TITLES[run["task"]], record["labels"][run["contender"]]]
            error = "" if run["error"] is None else f"{run['error']:.1g}"
            if run["word"]:
                rows.append([*name, run["word"], "", "", "", error])
                continue
            own = median(run["seconds"]) or math.nan
            share = ""
            if rate and run["task"] == "guided" and run["contender"] != "bfloat16":
                share = short(point["flops"] / rate[1] / own)
            rows.append([*name, _ms(run["seconds"]), short(own / _forward(point)), _ratio(record, point, run), share, error])
        title = f"### {point['network']}, batch {point['batch']}"
        head = ["", "", "ms per image (quartiles)", "forward passes", "fastest peer / it", "share of GEMM", "error"]
        parts.append(f"{title}\n\n{_facts(point)}\n\n{_table(head, rows)}{_details(record, point)}")
    return "\n\n".join(parts)


def _facts(point: Point) -> str:
    rounds = len(next(iter(point["reference"].values()), []))
    forward = ", ".join(f"{name} {_ms(seconds)} ms" for name, seconds in point["reference"].items())
    rate = gemm_rate(point)
    fastest = "" if rate is None else f" The machine's rate, {short(rate[1] / 1e9)} GFLOP/s, is that of a {rate[0]}."
    return (
        f"{rounds} rounds; {forward}; {short(point['flops'] / 1e9)} GFLOP for a forward and a data-only backward pass of an "
        f"image.{fastest} Maps compared with {point['against']}.{_opening(point)}"
    )


def _opening(point: Point) -> str:
    seconds = point["opening"].get("prepared")
    return "" if seconds is None else f" Preparing it took relume {short(1000 * seconds)} ms, once."


def _details(record: Record, point: Point) -> str:
    lines = [f"* {record['labels'][run['contender']]} {run['word']}: {run['detail']}" for run in point["runs"] if run["detail"]]
    said = list(dict.fromkeys(lines))  # once, and not for each task
    return "\n\n" + "\n".join(said) if said else ""
