"""What a chart of the page is: two drawings, a key and a table; and what several charts have in common."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from attrs import frozen

from gitlab_backup.components import COMPONENTS
from gitlab_backup.sizes import UNITS

from ..text import escape
from . import drawing
from .drawing import NARROW, WIDE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from markupsafe import Markup
    from matplotlib.axes import Axes

    from gitlab_backup.operations.report import BackupFigures

    from .drawing import Shape

NOTHING: Final = "\N{EN DASH}"
MARKS: Final = {"o": "●", "s": "■", "^": "▲", "D": "◆", "v": "▼", "P": "✚", "X": "✖"}
"""Shapes of matplotlib, and the letters that look like them."""
SPANS: Final = ((3600 * 3, 3600, "hours"), (180, 60, "minutes"), (0, 1, "seconds"))
"""From how many seconds on a unit of time is used."""
_MOST_MARKS: Final = 60
_MOST_SERIES: Final = 6
_NAMES: Final = {each.id: each.name for each in COMPONENTS}
_LONGEST_NAME: Final = 28


@frozen(kw_only=True)
class Key:
    """What a colour and a mark stand for. `colour` is a variable of the style sheet."""

    mark: str
    colour: str
    text: str


@frozen(kw_only=True)
class Table:
    """The figures of a chart. Columns but the first are numbers, unless they are among `left`."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    left: tuple[int, ...] = (0,)


@frozen(kw_only=True)
class Chart:
    """A chart: its drawing for two widths, what its colours mean, and its figures."""

    id: str
    title: str
    text: str
    keys: tuple[Key, ...]
    wide: Markup
    narrow: Markup
    table: Table


@frozen
class Series:
    """Which components have a colour of their own: the largest; the same ones in every chart."""

    ids: tuple[str, ...]
    others: bool
    """Whether there are more."""

    @classmethod
    def of(cls, backups: Sequence[BackupFigures]) -> Series:
        """Choose them for some backups."""
        written = Counter[str]()
        for backup in backups:
            for record in backup.done:
                written[record.id] += record.bytes_written
        ids = [each for each, count in written.most_common() if count]
        return cls(tuple(ids[:_MOST_SERIES]), len(ids) > _MOST_SERIES)

    def colour(self, component: str) -> str:
        """Return the colour of a component, for the drawing."""
        return drawing.SERIES[self.ids.index(component) if component in self.ids else len(drawing.SERIES) - 1]

    def key(self, component: str, mark: str) -> Key:
        """Return what says so in the key."""
        number = drawing.SERIES.index(self.colour(component))
        return Key(mark=MARKS[mark], colour=f"--series-{number}", text=label_of(component))

    def mark(self, component: str) -> str:
        """Return the mark of a component on a line."""
        return list(MARKS)[self.ids.index(component)]


def name_of(component: str) -> str:
    """Return what a component is called; one of another distribution by its id."""
    return _NAMES.get(component, escape(component))


def label_of(component: str) -> str:
    """Return that for a chart, whose room is small."""
    text = name_of(component)
    return text if len(text) <= _LONGEST_NAME else f"{text[: _LONGEST_NAME - 1]}…"


def chart(
    name: str,
    title: str,
    text: str,
    *,
    keys: Sequence[Key],
    plot: Callable[[Axes, Shape], None],
    table: Table,
    height: int | None = None,
) -> Chart:
    """Draw a chart for both widths. `name` is its own on the page; `text` is below its title, and read out."""
    label = f"Chart: {title}. {text} A table of the same figures follows."
    wide, narrow = (drawing.draw(name, label, shape, plot, height=height) for shape in (WIDE, NARROW))
    return Chart(id=name, title=title, text=text, keys=tuple(keys), wide=wide, narrow=narrow, table=table)


def line(axes: Axes, points: Sequence[tuple[float, float]], colour: str, mark: str, *, joined: bool = True) -> None:
    """Draw points, in the given order; where there are many on a line, it speaks for itself."""
    many = len(points) > _MOST_MARKS
    (drawn,) = axes.plot(
        [point[0] for point in points],
        [point[1] for point in points],
        color=colour,
        linestyle="-" if joined else "none",
        marker="" if joined and many else mark,
        markersize=5 if many else 6 if joined else 9,
        markeredgecolor=drawing.SURFACE,
        clip_on=False,
    )
    # Sharp turns of a line would count as far out, and cost it the room.
    drawn.set_in_layout(False)


def bytes_unit(largest: float) -> tuple[int, str]:
    """Return a unit for amounts of bytes: how many bytes it has, and its name."""
    power = 0
    while power < len(UNITS) - 1 and largest >= 1024 ** (power + 1):
        power += 1
    return 1024**power, UNITS[power] if power else "bytes"


def span_of(values: Sequence[float], show: Callable[[float], str], lead: str) -> str:
    """Return a sentence about the lowest and the highest value; nothing without values."""
    if not values:
        return ""
    low, high = show(min(values)), show(max(values))
    return f"{lead} {low}." if low == high else f"{lead} {low} to {high}."
