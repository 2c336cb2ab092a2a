"""What a run has found about other cores and other disks: what was measured, and what follows from it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from . import model

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from .contest import Outcome
    from .model import Limits

_MEGABYTE: Final = 1_000_000


def limited(outcomes: Iterable[Outcome]) -> list[tuple[Outcome, Limits]]:
    """Return the outcomes that say how something scales, as far as what they compare was measured."""
    found = [(outcome, outcome.limits) for outcome in outcomes if outcome.limits is not None]
    return [(outcome, limits) for outcome, limits in found if {1} < set(times(outcome, limits))]


def times(outcome: Outcome, limits: Limits) -> dict[int, float]:
    """Return the medians of the wall time by the number of cores, the lowest number first."""
    names = sorted(limits.cores, key=lambda name: limits.cores[name])
    return {limits.cores[name]: outcome.typical(name, "wall") for name in names if name in outcome.rounds}


def shares(outcome: Outcome, limits: Limits) -> tuple[float, float, float]:
    """Return the serial share: that of the medians, the lowest and the highest of a round."""
    names = [name for name in limits.cores if name in outcome.rounds]
    each = [
        model.serial_share({limits.cores[name]: taken.wall for name, taken in zip(names, takens, strict=True)})
        for takens in zip(*(outcome.rounds[name] for name in names), strict=True)
    ]
    return model.serial_share(times(outcome, limits)), min(each), max(each)


def core_table(found: Sequence[tuple[Outcome, Limits]]) -> tuple[list[str], list[list[str]]]:
    """Return headings, and a row for each kind."""
    counts = sorted({count for outcome, limits in found for count in times(outcome, limits)})
    computed = [count for count in model.COMPUTED if count > max(counts, default=0)]
    headings = ["", *(f"{_cores(count)}: s" for count in counts), "busy", "serial share"]
    headings += [f"{count}: times as fast" for count in computed]
    lines = []
    for outcome, limits in found:
        known = times(outcome, limits)
        share, lowest, highest = shares(outcome, limits)
        line = [limits.kind, *(f"{known[count]:.2f}" if count in known else "" for count in counts)]
        line += [f"{_busy(outcome, limits):.0%}", f"{share:.0%} ({lowest:.0%}-{highest:.0%})"]
        line += [f"{model.speedup(share, count, limits.most):.1f}" for count in computed]
        lines.append(line)
    return headings, lines


def disk_table(found: Sequence[tuple[Outcome, Limits]]) -> tuple[list[str], list[list[str]]]:
    """Return headings, and a row for each kind: measured times, and those of the model."""
    rates = sorted({rate for _, limits in found for rate in limits.rates.values()})
    headings = ["", "read, MB", *(f"{rate / _MEGABYTE:,.0f} MB/s: s" for rate in rates), "no limit: s", "enough: MB/s"]
    lines = []
    for outcome, limits in found:
        known = times(outcome, limits)
        unlimited = known[max(known)]
        line = [limits.kind, f"{limits.read / _MEGABYTE:,.0f}"]
        for rate in rates:
            taken = [outcome.typical(name, "wall") for name in outcome.rounds if limits.rates.get(name) == rate]
            measured = f"{taken[0]:.2f}" if taken else "-"
            line.append(f"{measured} ({model.limited(limits.read, rate, unlimited):.2f})")
        line += [f"{unlimited:.2f}", f"{model.enough(limits.read, unlimited) / _MEGABYTE:,.0f}"]
        lines.append(line)
    return headings, lines


def _cores(count: int) -> str:
    return "1 core" if count == 1 else f"{count} cores"


def _busy(outcome: Outcome, limits: Limits) -> float:
    """Return the part of the time for which the cores computed, with the most of them that were measured."""
    name = max((name for name in limits.cores if name in outcome.rounds), key=lambda name: limits.cores[name])
    computing = outcome.typical(name, "cpu") + outcome.typical(name, "server_cpu")
    return computing / (outcome.typical(name, "wall") * limits.cores[name])
