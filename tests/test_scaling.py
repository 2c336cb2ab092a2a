"""What the benchmark says of other cores and other disks: that it follows from what was measured."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import document, model, scaling
from benchmarks.contest import Contest, Outcome, Role, Variant, hold
from benchmarks.measure import BenchmarkError, Measurement
from benchmarks.results import Results

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

PARTS = st.floats(0, 1)
SECONDS = st.floats(0.01, 1e5)
CORES = st.integers(2, 512)
BYTES = st.integers(1, 1 << 50)

PAGE = "\n\n".join(["before", *document.SCALING, "between", *document.FIGURES, "after"])


def measured(*walls: float) -> tuple[Measurement, ...]:
    """Return rounds that took so many seconds, three quarters of it computing."""
    return tuple(Measurement(wall=wall, cpu=wall * 0.5, server_cpu=wall * 0.25, peak=1) for wall in walls)


def outcome(name: str, cores: Mapping[int, tuple[float, ...]], rates: Mapping[int, float], most: int | None) -> Outcome:
    """Return what became of reading 600 MB with so many cores, and at so many MB a second."""
    rounds = {f"{count} cores": measured(*walls) for count, walls in cores.items()}
    rounds |= {f"{rate} MB/s": measured(wall) for rate, wall in rates.items()}
    return Outcome(
        id=f"scaling-{name}",
        title=name,
        data="600 MB",
        roles=dict.fromkeys(rounds, Role.OURS.value),
        rounds=rounds,
        left_out={},
        failed=(),
        goals=(),
        limits=model.Limits(
            kind=name,
            read=600_000_000,
            cores={f"{count} cores": count for count in cores},
            rates={f"{rate} MB/s": rate * 1_000_000 for rate in rates},
            most=most,
        ),
    )


def results(*outcomes: Outcome) -> Results:
    """Return a run that has found these."""
    return Results(
        date="2024-04-25 13:55",
        command="python -m benchmarks",
        quick=True,
        rounds=2,
        duration=1.5,
        machine={"memory": "much"},
        outcomes=outcomes,
    )


FILES = outcome("files", {1: (10, 12), 2: (6, 6.6)}, {100: 6.6, 1_000: 6.4}, None)
DATABASE = outcome("database", {1: (8, 8), 2: (4, 4)}, {100: 6}, 8)


@given(PARTS, SECONDS, st.sets(CORES, min_size=1))
def test_share_is_found_again(share: float, alone: float, counts: set[int]) -> None:
    """From the times that a serial share leads to, however many, the fit finds this share."""
    times = {1: alone} | {count: alone / model.speedup(share, count) for count in counts}
    assert pytest.approx(share, abs=1e-6) == model.serial_share(times)


@given(SECONDS, st.dictionaries(CORES, SECONDS, min_size=1))
def test_share_is_a_share(alone: float, others: dict[int, float]) -> None:
    """Whatever was measured, noise too: nothing is predicted to get slower, or faster than in step with the cores."""
    share = model.serial_share({1: alone} | others)
    assert 0 <= share <= 1
    assert 1 <= model.speedup(share, 32) <= 32


def test_share_needs_two_times() -> None:
    """One time says nothing about other cores."""
    with pytest.raises(ValueError, match="more than one core"):
        model.serial_share({1: 3.0})


@given(PARTS, CORES, CORES)
def test_more_cores_are_not_slower(share: float, one: int, other: int) -> None:
    """The law rises with the cores, below their number and below what the serial share leaves, up to the most."""
    few, many = sorted((one, other))
    assert model.speedup(share, few) <= model.speedup(share, many) * (1 + 1e-9)
    assert model.speedup(share, many) <= many * (1 + 1e-9)
    assert model.speedup(share, many) * share <= 1 + 1e-9
    assert model.speedup(share, few) == model.speedup(share, many, most=few)


@given(BYTES, SECONDS, st.floats(1, 1e12))
def test_the_slower_limit_counts(count: int, unlimited: float, rate: float) -> None:
    """A run takes as long as the slower of disk and all else; from the rate that is enough on, the disk is not it."""
    time = model.limited(count, rate, unlimited)
    assert time in {count / rate, unlimited}
    assert min(count / rate, unlimited) <= time
    assert pytest.approx(unlimited) == model.limited(count, model.enough(count, unlimited), unlimited)
    assert model.limited(count, rate, unlimited) >= model.limited(count, rate * 2, unlimited)


def test_tables_have_what_was_measured_and_what_follows() -> None:
    """Medians, the share with its range over the rounds, the law up to the most; the model beside what was measured."""
    found = scaling.limited([FILES, DATABASE])
    headings, lines = scaling.core_table(found)
    assert ["", "1 core: s", "2 cores: s", "busy", "serial share"] == headings[:5]
    assert ["files", "11.00", "6.30", "38%", "15% (10%-20%)", "2.8", "4.0", "5.0", "5.8"] == lines[0]
    assert ["database", "8.00", "4.00", "38%", "0% (0%-0%)", "4.0", "8.0", "8.0", "8.0"] == lines[1]
    headings, lines = scaling.disk_table(found)
    assert ["", "read, MB", "100 MB/s: s", "1,000 MB/s: s", "no limit: s", "enough: MB/s"] == headings
    assert ["files", "600", "6.60 (6.30)", "6.40 (6.30)", "6.30", "95"] == lines[0]
    assert ["database", "600", "6.00 (6.00)", "- (4.00)", "4.00", "150"] == lines[1]


def test_what_is_not_measured_is_not_computed() -> None:
    """Where the run with one core or that with more has failed, nothing follows."""
    assert [] == scaling.limited([outcome("a", {2: (1.0,)}, {}, None), outcome("b", {1: (1.0,)}, {}, None)])


def test_page_is_made_of_the_document(tmp_path: Path) -> None:
    """From the document of a run alone come the tables and the charts, the same again; other text of the page stays."""
    (tmp_path / document.PAGE).write_text(PAGE)
    results(FILES, DATABASE).write(tmp_path / "results.json")
    made = []
    for _ in range(2):
        document.write(Results.read(tmp_path / "results.json"), tmp_path)
        made.append({path.name: path.read_text() for path in tmp_path.rglob("*.*") if path.is_file()})
    assert made[0] == made[1]
    page = made[0][document.PAGE]
    assert {"scaling-cores.svg", "scaling-disks.svg"} == {name for name in made[0] if name.endswith(".svg")}
    assert "15% (10%-20%)" in page.partition("between")[0]
    assert "](performance/scaling-cores.svg)" in page.partition("between")[0]
    assert "scaling" not in page.partition("between")[2].partition("### ")[2]
    assert page.startswith("before\n")
    assert page.endswith("\nafter")
    for chart in ("scaling-cores.svg", "scaling-disks.svg"):
        assert {"files", "database"} <= set(made[0][chart].replace("<", ">").split(">"))


def test_page_says_what_was_not_measured(tmp_path: Path) -> None:
    """A run without this scenario leaves no figures of another one, and no chart."""
    (tmp_path / document.PAGE).write_text(PAGE)
    document.write(results(FILES), tmp_path)
    document.write(results(), tmp_path)
    assert "This run has not measured it." in (tmp_path / document.PAGE).read_text()
    assert [] == list((tmp_path / "performance").iterdir())


def test_page_without_a_place_is_left_alone(tmp_path: Path) -> None:
    """A page that has no place for the figures is an error, and stays as it is, with its charts."""
    (tmp_path / document.PAGE).write_text("nothing\n")
    (tmp_path / "performance").mkdir()
    (tmp_path / "performance" / "old.svg").touch()
    with pytest.raises(BenchmarkError, match="lacks the lines"):
        document.write(results(FILES), tmp_path)
    assert "nothing\n" == (tmp_path / document.PAGE).read_text()
    assert (tmp_path / "performance" / "old.svg").exists()


def test_variant_is_run_no_more_than_it_wants(tmp_path: Path) -> None:
    """A variant with a number of rounds has no more of them, wherever its turn is; the others have all."""
    log = tmp_path / "log"
    names = ("one", "two", "three")
    variants = [
        Variant(name=name, role=Role.OURS, script=f"echo {name} >> {log}", rounds=1 if name == "two" else None)
        for name in names
    ]
    made = hold(
        Contest(id="made-up", title="Made up", data="nothing", variants=tuple(variants)),
        rounds=3,
        server=None,
        say=lambda _line: None,
    )
    assert {"one": 3, "two": 1, "three": 3} == {name: len(taken) for name, taken in made.rounds.items()}
    assert ["one", "two", "three", "three", "one", "three", "one"] == log.read_text().split()
