"""What was found, as tables for people."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from .contest import Figure

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from .contest import Judged, Outcome
    from .results import Results

_MEGABYTE: Final = 1_000_000
HEADINGS: Final = ("variant", "wall s", "CPU s", "PostgreSQL s", "peak MB", "out MB", "times as fast")
GOAL_HEADINGS: Final = ("goal", "asked for", "measured", "")


def rows(outcome: Outcome) -> list[tuple[str, ...]]:
    """Return a row for each variant: medians, and the lowest and highest of what varies."""
    found: list[tuple[str, ...]] = []
    for name in outcome.roles:
        if name in outcome.left_out:
            found.append((name, outcome.left_out[name], "", "", "", "", ""))
            continue
        walls = [each.wall for each in outcome.rounds[name]]
        server, output = outcome.typical(name, "server_cpu"), outcome.typical(name, "output")
        found.append(
            (
                name,
                f"{outcome.typical(name, 'wall'):.2f} ({min(walls):.2f}-{max(walls):.2f})",
                f"{outcome.typical(name, 'cpu'):.2f}",
                f"{server:.1f}" if server >= 0.1 else "",  # noqa: PLR2004 - less is the server's own life
                f"{outcome.typical(name, 'peak') / _MEGABYTE:.0f}",
                f"{output / _MEGABYTE:,.0f}" if output else "",
                _speedup(outcome, name),
            )
        )
    return found


def _speedup(outcome: Outcome, name: str) -> str:
    from statistics import median

    if outcome.reference is None:
        return ""
    if outcome.reference == name:
        return "1"
    found = outcome.speedups(name, outcome.reference)
    return f"{median(found):.2f} ({min(found):.2f}-{max(found):.2f})"


def goal_rows(goals: Iterable[Judged]) -> list[tuple[str, ...]]:
    """Return a row for each goal."""
    found: list[tuple[str, ...]] = []
    for goal in goals:
        sign = "≥" if goal.figure == Figure.SPEEDUP else "≤"
        asked = f"{sign} {goal.bound:g} {goal.figure}"
        if goal.value is None:
            found.append((goal.text, asked, "not measured", "not met"))
        else:
            digits = 0 if goal.figure == Figure.PEAK else 2
            spread = f"{goal.lowest:.{digits}f}-{goal.highest:.{digits}f}"
            measured = f"{goal.value:.{digits}f} ({spread})"
            found.append((goal.text, asked, measured, "met" if goal.met else "not met"))
    return found


def text(headings: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Return a table for a terminal."""
    every = [headings, *lines]
    widths = [max(len(line[column]) for line in every) for column in range(len(headings))]
    return "".join(
        "  " + "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() + "\n"
        for line in every
    )


def markdown(headings: Sequence[str], lines: Sequence[Sequence[str]], *, bold: str | None = None) -> str:
    """Return a table of Markdown; the row of the variant `bold` is in bold."""
    parts = [f"| {' | '.join(headings)} |\n", f"|{'---|' * len(headings)}\n"]
    for line in lines:
        cells = [f"**{cell}**" if cell and line[0] == bold else cell for cell in line]
        parts.append(f"| {' | '.join(cells)} |\n")
    return "".join(parts)


def shown(outcome: Outcome) -> str:
    """Return the tables of one contest for a terminal."""
    parts = [f"\n{outcome.title}: {outcome.data}\n\n", text(HEADINGS, rows(outcome))]
    if outcome.goals:
        parts += ["\n", text(GOAL_HEADINGS, goal_rows(outcome.goals))]
    return "".join(parts)


def summary(results: Results) -> str:
    """Return what a run has shown of the goals, for a terminal."""
    failed = "".join(f"\nFAILED {line}\n" for line in results.failed)
    size = ", small sizes: its ratios are not those of the goals" if results.quick else ""
    return f"\nThe goals (rounds: {results.rounds}{size})\n\n{text(GOAL_HEADINGS, goal_rows(results.goals))}{failed}"
