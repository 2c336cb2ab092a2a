"""Writes what was found into the documentation: figures between two marks of a page, and a chart for each contest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from .contest import Role
from .measure import BenchmarkError
from .tables import GOAL_HEADINGS, HEADINGS, goal_rows, markdown, rows

if TYPE_CHECKING:
    from pathlib import Path

    from .contest import Outcome
    from .results import Results

PAGE: Final = "performance.md"
BEGIN: Final = "<!-- figures: made by `python -m benchmarks --docs`; what is written here is overwritten -->"
END: Final = "<!-- end of the figures -->"

_COLOURS: Final = {Role.REFERENCE: "#9e3d3d", Role.ALTERNATIVE: "#8a8fa3", Role.FLOOR: "#c9ccd6", Role.OURS: "#2f6f4f"}


def write(results: Results, docs: Path) -> None:
    """Write figures and charts. Raises `BenchmarkError` where the page has no place for them."""
    page = docs / PAGE
    before, begin, rest = page.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise BenchmarkError(f"{page} lacks the lines {BEGIN} and {END}")
    charts = docs / page.stem
    charts.mkdir(exist_ok=True)
    for old in charts.glob("*.svg"):
        old.unlink()
    parts = [_run(results), "### The goals\n\n", markdown(GOAL_HEADINGS, goal_rows(results.goals))]
    for outcome in results.outcomes:
        _chart(outcome, charts / f"{outcome.id}.svg")
        parts += [
            f"\n### {outcome.title}\n\n{outcome.data[0].upper()}{outcome.data[1:]}.\n\n",
            markdown(HEADINGS, rows(outcome), bold=outcome.reference),
            f"\n![{outcome.title}, wall time]({page.stem}/{outcome.id}.svg)\n",
        ]
    page.write_text(f"{before}{BEGIN}\n\n{''.join(parts)}\n{END}{after}")


def _run(results: Results) -> str:
    kind = "with the small sizes of `--quick`, whose ratios are not those of the goals" if results.quick else "in full"
    lines = [
        f"Measured on {results.date} UTC {kind}, rounds: {results.rounds}, in {results.duration / 60:.0f} minutes:\n\n",
        f"<!-- not run: it measures for hours -->\n```console\n$ {results.command}\n```\n\n",
        markdown(("", ""), list(results.machine.items())),
        "\n",
    ]
    return "".join(lines)


def _chart(outcome: Outcome, path: Path) -> None:
    """Draw the medians of the wall time, with the lowest and the highest."""
    import matplotlib as mpl

    # Without these, every run would write another file for the same figures.
    mpl.use("svg")
    mpl.rcParams.update({"svg.hashsalt": "gitlab-backup", "svg.fonttype": "none", "font.size": 9})
    from matplotlib import pyplot as plt

    names = list(outcome.rounds)[::-1]
    middle = [outcome.typical(name, "wall") for name in names]
    lowest = [min(each.wall for each in outcome.rounds[name]) for name in names]
    highest = [max(each.wall for each in outcome.rounds[name]) for name in names]
    errors = [
        [each - low for each, low in zip(middle, lowest, strict=True)],
        [high - each for each, high in zip(middle, highest, strict=True)],
    ]
    figure, axes = plt.subplots(figsize=(8, 0.7 + 0.34 * len(names)), layout="constrained")
    colours = [_COLOURS[Role(outcome.roles[name])] for name in names]
    bars = axes.barh(names, middle, xerr=errors, color=colours, ecolor="#444444", capsize=2)
    axes.bar_label(bars, labels=[f" {each:.2f} s" for each in middle], padding=3)
    axes.set_xlim(0, max([*highest, 0.01]) * 1.15)
    axes.set_xlabel("wall time in seconds: median, lowest and highest")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
    # Lines of the drawing end with blanks.
    path.write_text("".join(f"{line.rstrip()}\n" for line in path.read_text().splitlines()))
