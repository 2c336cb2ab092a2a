"""Ways to do one thing, measured in turn, and what is asked of them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping  # noqa: TC003 - cattrs looks at it, to read results
from enum import StrEnum
from statistics import median
from typing import TYPE_CHECKING, Final

from attrs import evolve, field, frozen

from . import measure
from .measure import BenchmarkError, Measurement
from .model import Limits  # noqa: TC001 - likewise
from .removing import remove

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from .server import Server


class Role(StrEnum):
    """What a variant stands for."""

    REFERENCE = "reference"
    """What GitLab's own tool runs. All others are compared with it."""
    ALTERNATIVE = "alternative"
    """What a user would pick instead."""
    FLOOR = "floor"
    """Less than the whole work: nothing can be faster."""
    OURS = "this project"


@frozen(kw_only=True)
class Variant:
    """One way to do it."""

    name: str
    role: Role
    script: str
    """Of bash. A failure of any part of a pipeline is one of the script."""
    output: Path | None = None
    """What it makes: removed before each round, and its size is told."""
    needs: tuple[str, ...] = ()
    """Programs without which it is left out."""
    variables: Mapping[str, str] = field(factory=dict)
    prepare: Callable[[], object] | None = None
    """Called before each round, not measured."""
    check: Callable[[], object] | None = None
    """Called once, after the first round: raises `BenchmarkError` where the result is wrong."""
    server_cores: int | None = None
    """How many cores PostgreSQL has; None for all."""
    rounds: int | None = None
    """It is run in so many rounds at most; None for all of them."""


class Figure(StrEnum):
    """What a goal looks at."""

    SPEEDUP = "times as fast"
    """The time of `against` divided by that of the subject."""
    COST = "of its time"
    """The time of the subject divided by that of `against`."""
    SIZE = "of its size"
    MEMORY = "of its memory"
    WALL = "s"
    PEAK = "MB"


@frozen(kw_only=True)
class Goal:
    """Something that the figures have to show."""

    text: str
    subject: str
    """The name of a variant."""
    figure: Figure
    bound: float
    against: str | None = None
    """The name of the variant to compare with."""

    @property
    def at_least(self) -> bool:
        """Whether the figure must not be below the bound; else it must not be above."""
        return self.figure is Figure.SPEEDUP


@frozen(kw_only=True)
class Contest:
    """Variants that do the same, and goals."""

    id: str
    title: str
    data: str
    """What it is done with, in words and numbers."""
    variants: tuple[Variant, ...]
    goals: tuple[Goal, ...] = ()
    warm_up: str = ""
    """A script that is run once before, to fill the page cache."""
    limits: Limits | None = None
    """Where the variants are the same but for what they may use."""


@frozen(kw_only=True)
class Judged:
    """A goal and what was measured."""

    text: str
    figure: str
    bound: float
    value: float | None
    """The median of all rounds; None where it was not measured."""
    lowest: float = 0
    highest: float = 0
    met: bool = False


@frozen(kw_only=True)
class Outcome:
    """What became of a contest."""

    id: str
    title: str
    data: str
    roles: Mapping[str, str]
    rounds: Mapping[str, tuple[Measurement, ...]]
    """By variant, those that were measured."""
    left_out: Mapping[str, str]
    """By variant, why there is no figure."""
    failed: tuple[str, ...]
    goals: tuple[Judged, ...]
    limits: Limits | None = None

    @property
    def reference(self) -> str | None:
        """The variant that the others are compared with."""
        return next((name for name in self.rounds if self.roles[name] == Role.REFERENCE), None)

    def typical(self, name: str, what: str) -> float:
        """Return the median of a field of `Measurement` over the rounds of a variant."""
        return median(float(getattr(each, what)) for each in self.rounds[name])

    def speedups(self, name: str, against: str) -> list[float]:
        """Return how many times as fast as `against` a variant was, a figure for each round."""
        pairs = zip(self.rounds[name], self.rounds[against], strict=False)
        return [theirs.wall / own.wall for own, theirs in pairs]


def hold(contest: Contest, *, rounds: int, server: Server | None, say: Callable[[str], None]) -> Outcome:
    """Run all variants in turn, `rounds` times; each time another one is the first.

    A variant that fails is out, and named in the outcome.
    """
    left_out: dict[str, str] = {}
    failed = []
    measured: dict[str, list[Measurement]] = {}
    taking = []
    for variant in contest.variants:
        missing = [name for name in variant.needs if shutil.which(name, path=measure.environment()["PATH"]) is None]
        if missing:
            left_out[variant.name] = f"{' and '.join(missing)} not installed"
        else:
            taking.append(variant)
            measured[variant.name] = []
    if contest.warm_up:
        measure.run(contest.warm_up, variables=server.environment() if server else None)
    for number in range(rounds):
        turn = number % len(taking) if taking else 0
        for variant in (*taking[turn:], *taking[:turn]):
            if variant.name in left_out or (variant.rounds is not None and number >= variant.rounds):
                continue
            try:
                taken = _once(variant, server, check=number == 0)
            except BenchmarkError as error:
                left_out[variant.name] = "failed"
                failed.append(f"{contest.id}, {variant.name}: {error}")
                say(f"  FAILED {variant.name}: {error}")
                continue
            measured[variant.name].append(taken)
            say(f"  round {number + 1}: {variant.name}: {taken.wall:.2f} s")
    for name in [*left_out]:
        measured.pop(name, None)
    for variant in contest.variants:
        remove(variant.output)
    outcome = Outcome(
        id=contest.id,
        title=contest.title,
        data=contest.data,
        roles={variant.name: variant.role.value for variant in contest.variants},
        rounds={name: tuple(taken) for name, taken in measured.items()},
        left_out=left_out,
        failed=tuple(failed),
        goals=(),
        limits=contest.limits,
    )
    return evolve(outcome, goals=tuple(_judge(goal, outcome) for goal in contest.goals))


def _once(variant: Variant, server: Server | None, *, check: bool) -> Measurement:
    remove(variant.output)
    if variant.prepare is not None:
        variant.prepare()
    variables = dict(variant.variables)
    if server is not None:
        server.limit(variant.server_cores)
        server.settle()
        variables = {**server.environment(), **variables}
        variables["PATH"] = f"{server.programs}{os.pathsep}{measure.environment()['PATH']}"
    os.sync()
    taken = measure.run(variant.script, variables=variables, server=server)
    if server is not None:
        server.limit(None)
    if variant.output is not None:
        taken = evolve(taken, output=measure.size_of(variant.output))
    if check and variant.check is not None:
        variant.check()
    return taken


_MEGABYTE: Final = 1_000_000


def _judge(goal: Goal, outcome: Outcome) -> Judged:
    values = _values(goal, outcome)
    if not values:
        return Judged(text=goal.text, figure=goal.figure.value, bound=goal.bound, value=None)
    value = median(values)
    return Judged(
        text=goal.text,
        figure=goal.figure.value,
        bound=goal.bound,
        value=value,
        lowest=min(values),
        highest=max(values),
        met=value >= goal.bound if goal.at_least else value <= goal.bound,
    )


def _values(goal: Goal, outcome: Outcome) -> Sequence[float]:
    own = outcome.rounds.get(goal.subject, ())
    if goal.figure is Figure.WALL:
        return [each.wall for each in own]
    if goal.figure is Figure.PEAK:
        return [each.peak / _MEGABYTE for each in own]
    theirs = outcome.rounds.get(goal.against or "", ())
    pairs = list(zip(own, theirs, strict=False))
    if goal.figure is Figure.SPEEDUP:
        return [other.wall / each.wall for each, other in pairs]
    if goal.figure is Figure.COST:
        return [each.wall / other.wall for each, other in pairs]
    if goal.figure is Figure.SIZE:
        return [each.output / other.output for each, other in pairs]
    return [each.peak / other.peak for each, other in pairs]
