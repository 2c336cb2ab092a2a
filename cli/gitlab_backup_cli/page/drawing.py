"""Drawings by matplotlib that become a part of the page: colours and letters are those of its style sheet."""

from __future__ import annotations

import io
import logging
import re
import warnings
from typing import TYPE_CHECKING, Any, Final
from xml.etree import ElementTree as ET

import matplotlib as mpl
from attrs import frozen
from markupsafe import Markup
from matplotlib import dates
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from matplotlib.axes import Axes

# Where it cannot write its cache it says so, to nobody's use.
logging.getLogger("matplotlib").setLevel(logging.ERROR)

INK: Final = "#010100"
MUTED: Final = "#010101"
GRID: Final = "#010102"
SURFACE: Final = "#010103"
SERIES: Final = tuple(f"#0102{number:02x}" for number in range(7))
_VARIABLES: Final = {INK: "--ink", MUTED: "--muted", GRID: "--grid", SURFACE: "--surface"} | {
    colour: f"--series-{number}" for number, colour in enumerate(SERIES)
}
"""Colours that stand for those of the style sheet, so that they follow light and dark."""

_COLOUR: Final = re.compile("|".join(_VARIABLES))
_REFERENCE: Final = re.compile(r"#([\w-]+)")
_SVG: Final = "http://www.w3.org/2000/svg"
_HREF: Final = "{http://www.w3.org/1999/xlink}href"
_POINTS: Final = 72
"""An inch of matplotlib is as many units of its SVG; one unit is one pixel of the page, at full width."""
_FEWEST: Final = 6
"""Fewer bars than this leave room at both sides."""
_LOOK: Final[dict[Any, Any]] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "gitlab-backup",
    "text.parse_math": False,
    "timezone": "UTC",
    "font.size": 12,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": MUTED,
    "axes.labelsize": 12,
    "axes.spines.left": False,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": GRID,
    "grid.linewidth": 1,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "ytick.major.size": 0,
    "lines.linewidth": 2,
    "lines.markersize": 7,
    "lines.markeredgewidth": 0.8,
}


@frozen
class Shape:
    """The size of a drawing, in pixels, and how much fits in it."""

    width: int
    height: int
    ticks: int
    """How many values an axis of times is marked with at most."""
    slots: int
    """How many bars have room."""


WIDE: Final = Shape(width=960, height=300, ticks=10, slots=30)
NARROW: Final = Shape(width=360, height=270, ticks=4, slots=12)


def draw(
    name: str, label: str, shape: Shape, plot: Callable[[Axes, Shape], None], *, height: int | None = None
) -> Markup:
    """Return a drawing as an SVG element; `name` is its own on the page, `label` is read out in its place."""
    with warnings.catch_warnings(), mpl.rc_context():
        # They are about letters that its own fonts lack, and lack of room.
        warnings.simplefilter("ignore")
        mpl.rcdefaults()
        mpl.rcParams.update(_LOOK)
        figure = Figure(figsize=(shape.width / _POINTS, (height or shape.height) / _POINTS), layout="constrained")
        figure.patch.set_visible(False)
        axes = figure.add_subplot()
        axes.patch.set_visible(False)
        plot(axes, shape)
        written = io.StringIO()
        figure.savefig(written, format="svg", metadata={"Date": None})
    return Markup(_inline(written.getvalue(), f"{name}-{shape.width}", label))  # noqa: S704 - serialised as XML


def over_time(axes: Axes, shape: Shape, first: float, last: float) -> None:
    """Make the horizontal axis one of times, which matplotlib counts in days."""
    axes.xaxis_date()
    locator = dates.AutoDateLocator(minticks=2, maxticks=shape.ticks)  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(dates.ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]
    axes.set_xlabel("time of the backup (UTC)")
    margin = max(0.03 * (last - first), 0.5)
    axes.set_xlim(first - margin, last + margin)


def by_backup(axes: Axes, shape: Shape, times: Sequence[datetime]) -> None:
    """Make the horizontal axis one of backups, each as far from the next: old ones are few, and new ones close."""
    count = len(times)
    axes.xaxis.set_major_locator(FixedLocator([*range(count - 1, -1, -max(1, -(-count // shape.ticks)))][::-1]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: _day(times, round(x))))
    # Few are not to fill the whole width.
    spare = max(0, _FEWEST - count) / 2
    axes.set_xlim(-0.6 - spare, count - 0.4 + spare)
    axes.set_xlabel("backup, by its day (UTC)")


def _day(times: Sequence[datetime], number: int) -> str:
    if not 0 <= number < len(times):
        return ""
    one_year = times[0].year == times[-1].year
    return f"{times[number]:{'%b %d' if one_year else '%Y-%m-%d'}}"


def from_zero(axes: Axes, label: str) -> None:
    """Make the vertical axis one of amounts."""
    axes.set_ylim(bottom=0)
    axes.set_ylabel(label)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 5, 10]))


def _inline(svg: str, name: str, label: str) -> str:
    root = ET.fromstring(svg)  # noqa: S314 - matplotlib has just written it
    for element in list(root.iter()):
        for child in list(element):
            if child.tag in {f"{{{_SVG}}}metadata", f"{{{_SVG}}}style"}:  # a style would be one of the whole page
                element.remove(child)
        if reference := element.attrib.pop(_HREF, None):
            element.set("href", reference)
    used = {match for each in root.iter() for value in each.attrib.values() for match in _REFERENCE.findall(value)}
    for element in root.iter():
        element.attrib.update({key: _adapted(key, value, name) for key, value in element.attrib.items()})
        if element.get("id", "").removeprefix(f"{name}-") not in used:
            element.attrib.pop("id", None)
    for key in ("width", "height", "version"):
        root.attrib.pop(key, None)
    root.set("role", "img")
    root.set("aria-label", label)
    ET.register_namespace("", _SVG)
    return ET.tostring(root, encoding="unicode")


def _adapted(key: str, value: str, name: str) -> str:
    """Return an attribute as the page has it: ids are unique in it, colours are variables of its style sheet."""
    if key == "id":
        return f"{name}-{value}"
    if key == "href" or "url(#" in value:
        return _REFERENCE.sub(rf"#{name}-\1", value)
    return _COLOUR.sub(lambda match: f"var({_VARIABLES[match[0]]})", value)
