"""Collects what the tests have injected, from all workers; with `FAULTS=full`, writes it on the page."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Protocol

import pytest

from . import matrix
from .schedule import FULL

if TYPE_CHECKING:
    from collections.abc import Generator

_PROPERTY = "injected"
_COUNTS = pytest.StashKey[Counter[tuple[str, str]]]()


class Injected(Protocol):
    """Counts injections."""

    def __call__(self, fault: str, operation: str, count: int = 1) -> None:
        """Say that a fault was injected into an operation, and that its outcome was the one of the table."""


@pytest.fixture
def injected(request: pytest.FixtureRequest) -> Injected:
    """Return what counts the injections of a test, which must make some."""
    counts: Counter[tuple[str, str]] = Counter()

    def count(fault: str, operation: str, count: int = 1) -> None:
        matrix.cell(fault, operation)
        counts[fault, operation] += count
        request.node.user_properties[:] = [
            *(each for each in request.node.user_properties if each[0] != _PROPERTY),
            *((_PROPERTY, (*cell, number)) for cell, number in counts.items()),
        ]

    return count


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Have a test fail that was to inject something, and has not."""
    report = yield
    wanted = "injected" in getattr(item, "fixturenames", ())
    if wanted and report.when == "call" and report.passed and not _injections(report):
        report.outcome = "failed"
        report.longrepr = "nothing was injected"
    return report


def _injections(report: pytest.TestReport) -> list[tuple[str, str, int]]:
    return [value for name, value in report.user_properties if name == _PROPERTY]  # type: ignore[misc]


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker."""
    config.addinivalue_line("markers", "injects(fault, operation): counts as an injection of a fault; see tests/faults")
    config.stash[_COUNTS] = Counter()
    config.pluginmanager.register(_Collector(config), "faults-collector")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Note what markers say."""
    for item in items:
        for mark in item.iter_markers("injects"):
            fault, operation = mark.args
            matrix.cell(fault, operation)
            item.user_properties.append((_PROPERTY, (fault, operation, 1)))


class _Collector:
    """Adds up, where all reports arrive."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._counts = config.stash[_COUNTS]
        self._missing: list[tuple[str, str]] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take the injections of a test that has passed."""
        if report.when == "call" and report.passed:
            for fault, operation, count in _injections(report):
                self._counts[fault, operation] += count

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Tell the counts of a full run, also of one that has failed."""
        if FULL:
            terminalreporter.section("injections")
            for (fault, operation), count in sorted(self._counts.items()):
                terminalreporter.line(f"{count:6} {fault}: {operation}")
            for fault, operation in self._missing:
                terminalreporter.line(f"nothing was injected: {fault}: {operation}", red=True)

    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """Write the table of a full run; one that has left out a cell has failed."""
        if not FULL or hasattr(self._config, "workerinput"):
            return
        self._missing = [cell for cell in matrix.cells() if not self._counts[cell]]
        if self._missing:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
        elif exitstatus == 0:
            matrix.write(self._counts)
