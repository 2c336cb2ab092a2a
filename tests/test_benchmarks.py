"""The benchmark itself: that it measures what it says, and that nobody takes a failure for a figure."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING

import pytest

from benchmarks.contest import Contest, Figure, Goal, Outcome, Role, Variant, hold
from benchmarks.measure import BenchmarkError, run
from benchmarks.removing import putting_aside, remove
from benchmarks.results import Results
from benchmarks.tables import rows, summary

if TYPE_CHECKING:
    from pathlib import Path


def contest(*variants: Variant, goals: tuple[Goal, ...] = ()) -> Outcome:
    """Hold a contest of two rounds."""
    made = Contest(id="made-up", title="Made up", data="nothing", variants=variants, goals=goals)
    return hold(made, rounds=2, server=None, say=lambda _line: None)


def writing(path: Path, name: str, count: int, role: Role) -> Variant:
    """Return a variant that writes `count` bytes."""
    return Variant(name=name, role=role, script=f"head -c {count} /dev/zero > {path}", output=path)


@pytest.mark.parametrize("script", ["false | cat", "cat /nonexistent | true", "exit 3", "true; false; true"])
def test_failure_is_no_figure(script: str) -> None:
    """A failure of any part of a script puts its variant out of the contest, and is told; the others go on."""
    outcome = contest(
        Variant(name="bad", role=Role.REFERENCE, script=script), Variant(name="good", role=Role.OURS, script="true")
    )
    assert {"bad": "failed"} == outcome.left_out
    assert ["good"] == list(outcome.rounds)
    assert len(outcome.rounds["good"]) == 2
    assert "made-up, bad: exit status" in outcome.failed[0]


def test_wrong_result_is_no_figure() -> None:
    """A variant whose result is not right is out."""

    def check() -> None:
        raise BenchmarkError("a member is missing")

    outcome = contest(Variant(name="wrong", role=Role.OURS, script="true", check=check))
    assert {} == outcome.rounds
    assert ("made-up, wrong: a member is missing",) == outcome.failed


def test_missing_program_is_told() -> None:
    """What is not installed is left out by name, and is no failure."""
    outcome = contest(Variant(name="other", role=Role.ALTERNATIVE, script="true", needs=("no-such-program",)))
    assert {"other": "no-such-program not installed"} == outcome.left_out
    assert () == outcome.failed
    assert [("other", "no-such-program not installed", "", "", "", "", "")] == rows(outcome)


def test_peak_is_that_of_the_largest_process() -> None:
    """The peak of memory is that of the largest process of a pipeline, and not that of the benchmark."""
    small = run("true | cat").peak
    large = run("true | python3 -c 'bytearray(64 << 20)' | cat").peak
    assert 0 < small < 32 << 20
    assert 64 << 20 <= large < 128 << 20


def test_processor_time_is_that_of_all_processes() -> None:
    """The processor time of a pipeline is that of its parts together."""
    busy = "python3 -c 'import time\nwhile time.process_time() < 0.2: pass'"
    assert run(f"{busy} | {busy}").cpu >= 0.4


def test_goals_are_computed(tmp_path: Path) -> None:
    """A goal is met or not by the median of what was measured, compared within each round."""
    outcome = contest(
        writing(tmp_path / "one", "one", 1000, Role.REFERENCE),
        writing(tmp_path / "two", "two", 500, Role.OURS),
        goals=(
            Goal(text="small", subject="two", against="one", figure=Figure.SIZE, bound=0.6),
            Goal(text="smaller", subject="two", against="one", figure=Figure.SIZE, bound=0.4),
            Goal(text="faster", subject="two", against="one", figure=Figure.SPEEDUP, bound=1_000_000),
            Goal(text="of another", subject="three", against="one", figure=Figure.SPEEDUP, bound=1),
        ),
    )
    small, smaller, faster, other = outcome.goals
    assert (0.5, True) == (small.value, small.met)
    assert (0.5, False) == (smaller.value, smaller.met)
    ratios = [one.wall / two.wall for one, two in zip(outcome.rounds["one"], outcome.rounds["two"], strict=True)]
    assert (median(ratios), min(ratios), max(ratios)) == (faster.value, faster.lowest, faster.highest)
    assert not faster.met
    assert (None, False) == (other.value, other.met)
    assert not (tmp_path / "one").exists()


def test_results_are_read_as_written(tmp_path: Path) -> None:
    """The document of a run has all that its tables are made of."""
    outcome = contest(writing(tmp_path / "one", "one", 1000, Role.REFERENCE))
    results = Results(
        date="2024-04-25 13:55",
        command="python -m benchmarks",
        quick=True,
        rounds=2,
        duration=1.5,
        machine={"memory": "much"},
        outcomes=(outcome,),
        broken=("growth: no",),
    )
    results.write(tmp_path / "results.json")
    read = Results.read(tmp_path / "results.json")
    assert results == read
    assert summary(results) == summary(read)
    assert ["growth: no"] == read.failed


def test_trees_are_put_aside(tmp_path: Path) -> None:
    """What is removed while trees are put aside is gone from its place, takes no room, and goes at the end.

    What has another name stays as it is there.
    """
    made, aside = tmp_path / "made", tmp_path / "aside"
    (made / "below").mkdir(parents=True)
    (made / "below" / "file").write_bytes(b"data")
    (tmp_path / "kept").write_bytes(b"data")
    (made / "linked").hardlink_to(tmp_path / "kept")
    inode = (made / "below" / "file").stat().st_ino
    with putting_aside(aside):
        remove(made)
        assert not made.exists()
        (found,) = aside.rglob("below/file")
        assert (inode, 0) == (found.stat().st_ino, found.stat().st_size)
        assert b"data" == (tmp_path / "kept").read_bytes()
    assert ["kept"] == [each.name for each in tmp_path.iterdir()]
