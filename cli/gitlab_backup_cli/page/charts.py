"""The charts of the reports, each with a table that says the same."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from matplotlib.dates import date2num
from matplotlib.ticker import MaxNLocator

from gitlab_backup.operations.report import Fate, ratio
from gitlab_backup.retention import Rule

from ..text import duration, plural, size, time
from . import drawing
from .chart import MARKS, NOTHING, SPANS, Key, Table, bytes_unit, chart, label_of, line, name_of, span_of
from .drawing import WIDE, by_backup, from_zero, over_time

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from matplotlib.axes import Axes

    from gitlab_backup.manifest import ComponentRecord
    from gitlab_backup.operations.report import BackupFigures, Report

    from .chart import Chart, Series
    from .drawing import Shape

_OTHERS: Final = "others"


def sizes(report: Report) -> Chart:
    """Draw how large the backups are."""
    unit, name = bytes_unit(max(each.size_bytes for each in report.backups))
    kinds: dict[str, tuple[str, str, Callable[[BackupFigures], bool]]] = {
        "complete": ("o", drawing.SERIES[0], lambda each: each.kind is None and not each.warnings),
        "complete, with warnings": ("D", drawing.SERIES[1], lambda each: each.kind is None and bool(each.warnings)),
        "not a whole backup": ("X", drawing.SERIES[5], lambda each: each.kind is not None),
    }
    found = {text: [each for each in report.backups if is_it(each)] for text, (_, _, is_it) in kinds.items()}

    def plot(axes: Axes, shape: Shape) -> None:
        over_time(axes, shape, _day_of(report.backups[0]), _day_of(report.backups[-1]))
        line(axes, [(_day_of(each), each.size_bytes / unit) for each in report.whole], drawing.SERIES[0], "")
        for text, (mark, colour, _) in kinds.items():
            points = [(_day_of(each), each.size_bytes / unit) for each in found[text]]
            line(axes, points, colour, mark, joined=False)
        from_zero(axes, f"size in {name}")

    return chart(
        "sizes",
        "Size over time",
        f"How large each backup is. {span_of([each.size_bytes for each in report.whole], size, 'Whole backups have')}",
        keys=[
            Key(mark=MARKS[mark], colour=f"--series-{drawing.SERIES.index(colour)}", text=text)
            for text, (mark, colour, _) in kinds.items()
            if found[text]
        ],
        plot=plot,
        table=Table(
            header=("Backup (UTC)", "Size", "Kind"),
            rows=tuple(
                (time(each.created_at), size(each.size_bytes), next(text for text in kinds if each in found[text]))
                for each in reversed(report.backups)
            ),
            left=(0, 2),
        ),
    )


def components(backups: Sequence[BackupFigures], series: Series) -> Chart:
    """Draw what the newest backups consist of."""
    names = [*series.ids, *((_OTHERS,) if series.others else ())]
    written = [_by_series(backup, series) for backup in backups]
    unit, unit_name = bytes_unit(max(each.total() for each in written[-WIDE.slots :]))

    def plot(axes: Axes, shape: Shape) -> None:
        shown = written[-shape.slots :]
        bottom = [0.0] * len(shown)
        for each in names:
            heights = [counts[each] / unit for counts in shown]
            axes.bar(
                range(len(shown)),
                heights,
                bottom=bottom,
                width=0.72,
                color=series.colour(each),
                edgecolor=drawing.SURFACE,
                linewidth=1,
            )
            bottom = [low + height for low, height in zip(bottom, heights, strict=True)]
        by_backup(axes, shape, [backup.created_at for backup in backups[-shape.slots :]])
        from_zero(axes, f"size in {unit_name}")

    count = min(len(backups), WIDE.slots)
    return chart(
        "components",
        "Size by component",
        f"What the {f'newest {count} backups' if count > 1 else 'newest backup'} with a manifest consist"
        f"{'' if count > 1 else 's'} of, in the order of the key from below.",
        keys=[series.key(each, "s") for each in names],
        plot=plot,
        table=Table(
            header=("Backup (UTC)", *map(name_of, names)),
            rows=tuple(
                (time(backup.created_at), *(size(counts[each]) for each in names))
                for backup, counts in list(zip(backups, written, strict=True))[: -WIDE.slots - 1 : -1]
            ),
        ),
    )


def durations(backups: Sequence[BackupFigures], series: Series) -> Chart:
    """Draw how long backups, and their components, took."""
    values = {each.id: {record.id: record.duration_seconds for record in each.done} for each in backups}
    runs = [each.duration_seconds or 0 for each in backups]
    longest = max([*runs, *(seconds for each in values.values() for seconds in each.values())])
    unit, name = next((unit, name) for least, unit, name in SPANS if longest >= least)

    def plot(axes: Axes, shape: Shape) -> None:
        by_backup(axes, shape, [each.created_at for each in backups])
        for each in series.ids:
            points = [(at, values[b.id][each] / unit) for at, b in enumerate(backups) if each in values[b.id]]
            line(axes, points, series.colour(each), series.mark(each))
        line(axes, [(at, seconds / unit) for at, seconds in enumerate(runs)], drawing.INK, "o")
        from_zero(axes, f"time in {name}")

    return chart(
        "durations",
        "How long it took",
        "The whole run, and the components in it. These are worked on side by side, so they add up to more than the "
        f"run. {span_of(runs, duration, 'A run took')}",
        keys=[
            Key(mark="●", colour="--ink", text="The whole run"),
            *(series.key(each, series.mark(each)) for each in series.ids),
        ],
        plot=plot,
        table=Table(
            header=("Backup (UTC)", "The whole run", *map(name_of, series.ids)),
            rows=tuple(
                (
                    time(each.created_at),
                    duration(run),
                    *(duration(values[each.id][c]) if c in values[each.id] else NOTHING for c in series.ids),
                )
                for each, run in reversed(list(zip(backups, runs, strict=True)))
            ),
        ),
    )


def compression(backups: Sequence[BackupFigures], series: Series) -> Chart:
    """Draw how much smaller components are in the backup."""
    ratios = {
        each.id: {r.id: found for r in each.done if (found := ratio(r.bytes_read, r.bytes_written)) is not None}
        for each in backups
    }
    ids = [each for each in series.ids if any(each in found for found in ratios.values())]

    def plot(axes: Axes, shape: Shape) -> None:
        by_backup(axes, shape, [each.created_at for each in backups])
        axes.axhline(1, color=drawing.MUTED, linewidth=1, linestyle=(0, (4, 3)))
        for each in ids:
            points = [(at, ratios[b.id][each]) for at, b in enumerate(backups) if each in ratios[b.id]]
            line(axes, points, series.colour(each), series.mark(each))
        from_zero(axes, "bytes read per byte written")

    return chart(
        "compression",
        "Compression",
        "How many bytes that were read became one in the backup: 4 is a quarter of the size, 1 (the broken line) is as "
        "large as before. Repositories are compressed already.",
        keys=[series.key(each, series.mark(each)) for each in ids],
        plot=plot,
        table=Table(
            header=("Backup (UTC)", "All of it", *map(name_of, ids)),
            rows=tuple(
                (
                    time(each.created_at),
                    as_ratio(each.ratio),
                    *(as_ratio(ratios[each.id].get(component)) for component in ids),
                )
                for each in reversed(backups)
            ),
        ),
    )


def retention(report: Report) -> Chart:
    """Draw which rule keeps which backup."""
    rules = [rule for rule in Rule if any(reason.rule is rule for each in report.backups for reason in each.reasons)]
    lines: dict[str, list[BackupFigures]] = {
        rule.value: [each for each in report.backups if any(reason.rule is rule for reason in each.reasons)]
        for rule in rules
    }
    lines["would be deleted"] = [each for each in report.backups if each.fate is Fate.DELETED]
    lines["left alone"] = [each for each in report.backups if each.fate is Fate.LEFT_ALONE]
    shown = {name: found for name, found in lines.items() if found}
    slots = {each.id: number for number, each in enumerate(report.backups)}
    looks = {"would be deleted": ("X", drawing.SERIES[5]), "left alone": ("D", drawing.SERIES[-1])}

    def plot(axes: Axes, shape: Shape) -> None:
        by_backup(axes, shape, [each.created_at for each in report.backups])
        for row, (name, found) in enumerate(shown.items()):
            mark, colour = looks.get(name, ("o", drawing.SERIES[2]))
            line(axes, [(slots[each.id], row) for each in found], colour, mark, joined=False)
        axes.set_yticks(range(len(shown)), list(shown))
        axes.set_ylim(len(shown) - 0.4, -0.6)

    kept = sum(each.fate is Fate.KEPT for each in report.backups)
    gone = len(lines["would be deleted"])
    return chart(
        "retention",
        "What is kept by which rule",
        f"{plural(kept, 'backup')} would stay, {gone} would be deleted. A backup stays if one rule keeps it.",
        keys=[
            Key(mark="●", colour="--series-2", text="kept by this rule"),
            *([Key(mark="✖", colour="--series-5", text="would be deleted")] if gone else []),
            *([Key(mark="◆", colour="--series-6", text="no rule is for it")] if lines["left alone"] else []),
        ],
        plot=plot,
        table=Table(
            header=("Backup (UTC)", "What prune would do", "Rules"),
            rows=tuple(
                (time(each.created_at), verdict(each.fate), ", ".join(map(str, each.reasons)) or NOTHING)
                for each in reversed(report.backups)
            ),
            left=(0, 1, 2),
        ),
        height=110 + 30 * len(shown),
    )


def _day_of(backup: BackupFigures) -> float:
    """Return the time of a backup as a place on an axis of times."""
    return float(date2num(backup.created_at))  # type: ignore[no-untyped-call]


def one(records: Sequence[ComponentRecord], *, of_time: bool) -> Chart:
    """Draw the components of one backup: their bytes, or with `of_time` how long they took."""
    if of_time:
        unit, name = next((u, n) for least, u, n in SPANS if max(each.duration_seconds for each in records) >= least)
        bars = {"time": (drawing.SERIES[0], [each.duration_seconds / unit for each in records])}
        label = f"time in {name}"
    else:
        unit, name = bytes_unit(max(max(each.bytes_read, each.bytes_written) for each in records))
        bars = {
            "read": (drawing.SERIES[4], [each.bytes_read / unit for each in records]),
            "written": (drawing.SERIES[0], [each.bytes_written / unit for each in records]),
        }
        label = f"size in {name}"
    thick = 0.76 / len(bars)

    def plot(axes: Axes, shape: Shape) -> None:
        for number, (colour, widths) in enumerate(bars.values()):
            at = [row + (number - (len(bars) - 1) / 2) * thick for row in range(len(records))]
            axes.barh(at, widths, height=thick, color=colour, edgecolor=drawing.SURFACE, linewidth=1)
        axes.set_yticks(range(len(records)), [label_of(each.id) for each in records])
        axes.set_ylim(len(records) - 0.4, -0.6)
        axes.set_xlim(left=0)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=min(shape.ticks, 6), steps=[1, 2, 5, 10]))
        axes.grid(visible=False, axis="y")
        axes.grid(visible=True, axis="x")
        axes.spines["bottom"].set_visible(False)
        axes.set_xlabel(label)

    rows = tuple(
        (name_of(each.id), duration(each.duration_seconds))
        if of_time
        else (name_of(each.id), size(each.bytes_read), size(each.bytes_written))
        for each in records
    )
    return chart(
        "durations" if of_time else "bytes",
        "Time by component" if of_time else "Bytes in and out",
        "Components are worked on side by side, so they add up to more than the run."
        if of_time
        else "What was read of each component, and what of it is in the backup.",
        keys=[
            Key(mark="■", colour=f"--series-{drawing.SERIES.index(colour)}", text=text)
            for text, (colour, _) in bars.items()
            if len(bars) > 1
        ],
        plot=plot,
        table=Table(header=("Component", "Time") if of_time else ("Component", "Read", "Written"), rows=rows),
        height=70 + (24 if of_time else 34) * len(records),
    )


def verdict(fate: Fate) -> str:
    """Return in words what `prune` would do."""
    return {Fate.KEPT: "keep it", Fate.DELETED: "delete it", Fate.LEFT_ALONE: "leave it alone"}.get(fate, NOTHING)


def as_ratio(value: float | None) -> str:
    """Return a ratio of compression: `3.1 : 1`."""
    return NOTHING if value is None else f"{value:.1f} : 1" if value < 100 else f"{value:.0f} : 1"  # noqa: PLR2004


def _by_series(backup: BackupFigures, series: Series) -> Counter[str]:
    counts = Counter[str]()
    for record in backup.done:
        counts[record.id if record.id in series.ids else _OTHERS] += record.bytes_written
    return counts
