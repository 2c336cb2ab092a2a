"""Draws what was found."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from . import model
from .contest import Role
from .scaling import shares, times

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from matplotlib.axes import Axes

    from .contest import Outcome
    from .model import Limits

_COLOURS: Final = {Role.REFERENCE: "#9e3d3d", Role.ALTERNATIVE: "#8a8fa3", Role.FLOOR: "#c9ccd6", Role.OURS: "#2f6f4f"}
_OF_LINES: Final = ("#2f6f4f", "#9e3d3d", "#2b5c8a", "#b7791f", "#6b4c8f", "#4a4e5a")
_MARKS: Final = "osD^vP"
_MEGABYTE: Final = 1_000_000
_GIGABYTE: Final = 1_000_000_000
_SLOWEST, _FASTEST = 50 * _MEGABYTE, 2 * _GIGABYTE
_DISTANCE: Final = 0.044
"""Between two labels, of the height of the chart."""


def walls(outcome: Outcome, path: Path) -> None:
    """Draw the medians of the wall time, with the lowest and the highest."""
    names = list(outcome.rounds)[::-1]
    middle = [outcome.typical(name, "wall") for name in names]
    lowest = [min(each.wall for each in outcome.rounds[name]) for name in names]
    highest = [max(each.wall for each in outcome.rounds[name]) for name in names]
    errors = [
        [each - low for each, low in zip(middle, lowest, strict=True)],
        [high - each for each, high in zip(middle, highest, strict=True)],
    ]
    with _drawing(path, height=0.7 + 0.34 * len(names)) as axes:
        colours = [_COLOURS[Role(outcome.roles[name])] for name in names]
        bars = axes.barh(names, middle, xerr=errors, color=colours, ecolor="#444444", capsize=2)
        axes.bar_label(bars, labels=[f" {each:.2f} s" for each in middle], padding=3)
        axes.set_xlim(0, max([*highest, 0.01]) * 1.15)
        axes.set_xlabel("wall time in seconds: median, lowest and highest")


def cores(found: Sequence[tuple[Outcome, Limits]], path: Path) -> None:
    """Draw how many times as fast each kind is with more cores: solid as measured, dashed as computed."""
    with _drawing(path, height=4.6) as axes:
        last = max([model.COMPUTED[-1], *(max(times(outcome, limits)) for outcome, limits in found)])
        axes.plot([1, last], [1, last], color="#c9ccd6", linewidth=1, linestyle=":")
        ends: dict[str, float] = {}
        for (outcome, limits), style in zip(found, _styles(), strict=False):
            measured = {count: times(outcome, limits)[1] / time for count, time in times(outcome, limits).items()}
            share = shares(outcome, limits)[0]
            most = max(measured)
            computed = {most: measured[most]}
            for count in model.COMPUTED:
                if count > most:
                    computed[count] = model.speedup(share, count, limits.most)
            axes.plot(list(computed), list(computed.values()), linestyle="--", linewidth=1.2, color=style["color"])
            axes.plot(list(measured), list(measured.values()), linewidth=2.2, markersize=6, **style)
            ends[limits.kind] = list(computed.values())[-1]
        _logarithmic(axes, base=2)
        axes.set_xticks([1, 2, *model.COMPUTED], [str(count) for count in (1, 2, *model.COMPUTED)])
        axes.set_yticks([1, 2, *model.COMPUTED], [str(count) for count in (1, 2, *model.COMPUTED)])
        axes.set_xlim(0.93, last)
        axes.set_ylim(0.9, last * 1.1)
        _label(axes, last, ends)
        axes.text(
            last * 0.7, last * 0.78, "all of it side by side", color="#8a8fa3", ha="right", va="bottom", fontsize=9
        )
        axes.set_xlabel("cores (solid: measured; dashed: computed)")
        axes.set_ylabel("times as fast as on one core")


def disks(found: Sequence[tuple[Outcome, Limits]], path: Path) -> None:
    """Draw the seconds for a gigabyte of each kind by the rate of reading: the model, and what was measured."""
    with _drawing(path, height=4.6) as axes:
        ends: dict[str, float] = {}
        highest = _GIGABYTE / _SLOWEST
        for (outcome, limits), style in zip(found, _styles(), strict=False):
            known = times(outcome, limits)
            each = _GIGABYTE / limits.read
            unlimited = known[max(known)]
            knee = model.enough(limits.read, unlimited)
            rates = [_SLOWEST, min(max(knee, _SLOWEST), _FASTEST), _FASTEST]
            line = [model.limited(limits.read, rate, unlimited) * each for rate in rates]
            axes.plot([rate / _MEGABYTE for rate in rates], line, linestyle="--", linewidth=1.2, color=style["color"])
            points = {
                rate / _MEGABYTE: outcome.typical(name, "wall") * each
                for name, rate in limits.rates.items()
                if name in outcome.rounds
            }
            axes.plot(list(points), list(points.values()), markersize=6, **{**style, "linestyle": "none"})
            ends[limits.kind] = line[-1]
            highest = max([highest, *line, *points.values()])
        _logarithmic(axes, base=10)
        marks = (50, 100, 200, 400, 1_000, 2_000)
        axes.set_xticks(marks, [f"{mark:,}" for mark in marks])
        seconds = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20)
        axes.set_yticks(seconds, [f"{each:g}" for each in seconds])
        axes.set_ylim(min([*ends.values(), 2]) / 1.5, highest * 1.15)
        axes.set_xlim(_SLOWEST / _MEGABYTE, _FASTEST / _MEGABYTE)
        _label(axes, _FASTEST / _MEGABYTE, ends)
        axes.set_xlabel("MB that may be read in a second (points: measured; dashed: computed)")
        axes.set_ylabel("seconds for a GB that is read")


def _styles() -> Iterator[dict[str, Any]]:
    for colour, mark in zip(_OF_LINES, _MARKS, strict=True):
        yield {"color": colour, "marker": mark}


def _logarithmic(axes: Axes, *, base: int) -> None:
    axes.set_xscale("log", base=base)
    axes.set_yscale("log", base=base)
    axes.minorticks_off()
    axes.grid(color="#e6e8ee", linewidth=0.6)
    axes.set_axisbelow(True)


def _label(axes: Axes, x: float, ends: Mapping[str, float]) -> None:
    """Write the names of lines to the right of where they end, in their colours, none over another."""
    to_axes = axes.transData + axes.transAxes.inverted()
    placed = -1.0
    for (name, value), colour in sorted(zip(ends.items(), _OF_LINES, strict=False), key=lambda each: each[0][1]):
        height = max(float(to_axes.transform((x, value))[1]), placed + _DISTANCE)
        axes.text(1.015, height, name, color=colour, transform=axes.transAxes, va="center", fontsize=9)
        placed = height


@contextmanager
def _drawing(path: Path, *, height: float) -> Iterator[Axes]:
    """Give axes to draw on, and write them."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    # Without the first, every run would write another file for the same figures.
    with mpl.rc_context({"svg.hashsalt": "gitlab-backup", "svg.fonttype": "none", "font.size": 9}):
        figure = Figure(figsize=(8, height), layout="constrained")
        axes = figure.subplots()
        axes.spines[["top", "right"]].set_visible(False)
        yield axes
        figure.savefig(path, format="svg", metadata={"Date": None})
    # Lines of the drawing end with blanks.
    path.write_text("".join(f"{line.rstrip()}\n" for line in path.read_text().splitlines()))
