"""Writes what was found into the documentation: figures between marks of a page, and charts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from . import charts, scaling
from .measure import BenchmarkError
from .tables import GOAL_HEADINGS, HEADINGS, goal_rows, markdown, rows

if TYPE_CHECKING:
    from pathlib import Path

    from .results import Results

PAGE: Final = "performance.md"
_MARK: Final = "<!-- {}: made by `python -m benchmarks --docs`; what is written here is overwritten -->"
FIGURES: Final = (_MARK.format("figures"), "<!-- end of the figures -->")
SCALING: Final = (_MARK.format("scaling"), "<!-- end of the scaling -->")


def write(results: Results, docs: Path) -> None:
    """Write figures and charts. Raises `BenchmarkError` where the page has no place for them."""
    page = docs / PAGE
    text = page.read_text()
    for begin, end in (SCALING, FIGURES):
        if end not in text.partition(begin)[2]:
            raise BenchmarkError(f"{page} lacks the lines {begin} and {end}")
    directory = docs / page.stem
    directory.mkdir(exist_ok=True)
    for old in directory.glob("*.svg"):
        old.unlink()
    text = _put(text, SCALING, _scaling(results, directory))
    page.write_text(_put(text, FIGURES, _figures(results, directory)))


def _put(text: str, marks: tuple[str, str], part: str) -> str:
    """Return a text with another part between two marks."""
    before, begin, rest = text.partition(marks[0])
    _, end, after = rest.partition(marks[1])
    return f"{before}{begin}\n\n{part}\n{end}{after}"


def _figures(results: Results, directory: Path) -> str:
    parts = [_run(results), "### The goals\n\n", markdown(GOAL_HEADINGS, goal_rows(results.goals))]
    for outcome in results.outcomes:
        if outcome.limits is None:
            charts.walls(outcome, directory / f"{outcome.id}.svg")
            parts += [
                f"\n### {outcome.title}\n\n{outcome.data[0].upper()}{outcome.data[1:]}.\n\n",
                markdown(HEADINGS, rows(outcome), bold=outcome.reference),
                f"\n![{outcome.title}, wall time]({directory.name}/{outcome.id}.svg)\n",
            ]
    return "".join(parts)


def _scaling(results: Results, directory: Path) -> str:
    found = scaling.limited(results.outcomes)
    if not found:
        return "This run has not measured it.\n"
    charts.cores(found, directory / "scaling-cores.svg")
    charts.disks(found, directory / "scaling-disks.svg")
    return (
        f"Measured on {results.date} UTC: medians of {results.rounds} rounds, and the limited rates in one.\n\n"
        f"### With cores\n\n![Times as fast, by cores]({directory.name}/scaling-cores.svg)\n\n"
        f"{markdown(*scaling.core_table(found))}\n"
        f"### With disks\n\n![Seconds for a gigabyte, by the rate of reading]({directory.name}/scaling-disks.svg)\n\n"
        f"{markdown(*scaling.disk_table(found))}"
    )


def _run(results: Results) -> str:
    kind = "with the small sizes of `--quick`, whose ratios are not those of the goals" if results.quick else "in full"
    lines = [
        f"Measured on {results.date} UTC {kind}, rounds: {results.rounds}, in {results.duration / 60:.0f} minutes:\n\n",
        f"<!-- not run: it measures for hours -->\n```console\n$ {results.command}\n```\n\n",
        markdown(("", ""), list(results.machine.items())),
        "\n",
    ]
    return "".join(lines)
