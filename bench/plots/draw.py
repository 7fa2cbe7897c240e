"""Draw what `outbox bench flat --json` found: `draw.py FLAT.json… FOLDER` writes SVG files.

Several files may each have a part of the benchmark: backlogs, ahead, pinned.
"""

import json
import sys
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

COUNTED = {"pages_per_claimed": "pages", "postgres_cpu_us_per_job": "µs of Postgres' CPU"}
TITLES = {
    "pinned": "drained under an open snapshot",
    "one_time": "drained under an open snapshot, all due at one time",
}


def main(files: list[str], folder: Path) -> None:
    mpl.rcParams["svg.hashsalt"] = "outbox"  # the same figures make the same file
    found: dict[str, dict] = {}
    series: dict[str, list] = {}
    for file in files:
        told = json.loads(Path(file).read_text())
        series |= told.pop("series", {})
        found |= {name: value for name, value in told.items() if isinstance(value, dict)}
    folder.mkdir(parents=True, exist_ok=True)
    _draw_neighbours(found, folder / "backlog.svg")
    for name, points in series.items():
        if points:
            _draw_drain(TITLES[name], points, folder / f"{name}.svg")


def _draw_neighbours(found: dict[str, dict], path: Path) -> None:
    """Draw the cost of a job by how many others there are."""
    backlogs = sorted(
        (int(name.removeprefix("backlog_")), cost)
        for name, cost in found.items()
        if name.startswith("backlog_")
    )
    figure = Figure(figsize=(8, 3), layout="constrained")
    for axes, (key, label) in zip(figure.subplots(1, 2), COUNTED.items(), strict=True):
        axes.plot([n for n, _ in backlogs], [c[key] for _, c in backlogs], "o-", label="due")
        if "ahead" in found:
            ahead = found["ahead"]
            axes.plot([ahead["scheduled_ahead"]], [ahead[key]], "s", label="scheduled far ahead")
        axes.set_xscale("log")
        _finish(axes, "jobs that wait", f"{label} a job")
    _save(figure, path)


def _draw_drain(title: str, points: list, path: Path) -> None:
    """Draw rate and pages from the first job to the last."""
    figure = Figure(figsize=(8, 3), layout="constrained")
    figure.suptitle(title, fontsize=10)
    for axes, place, label in zip(
        figure.subplots(1, 2), (1, 2), ("jobs a second", "pages a claimed job"), strict=True
    ):
        axes.plot([point[0] for point in points], [point[place] for point in points])
        _finish(axes, "jobs drained", label)
    _save(figure, path)


def _finish(axes: Axes, x: str, y: str) -> None:
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.set_ylim(bottom=0)
    axes.grid(visible=True, alpha=0.3)
    if axes.get_legend_handles_labels()[0]:
        axes.legend()


def _save(figure: Figure, path: Path) -> None:
    figure.savefig(path, metadata={"Date": None})
    print(path)


main(sys.argv[1:-1], Path(sys.argv[-1]))
