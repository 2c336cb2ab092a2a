"""Collects what the tests have injected, from all workers; with `FAULTS=full`, writes it on the page."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Protocol

import pytest

from . import matrix
from .schedule import FULL

if TYPE_CHECKING:
    from collections.abc import Iterator

_PROPERTY = "injected"
_COUNTS = pytest.StashKey[Counter[tuple[str, str]]]()


class Injected(Protocol):
    """Counts injections."""

    def __call__(self, fault: str, operation: str, count: int = 1) -> None:
        """Say that a fault was injected into an operation, and that its outcome was the one of the table."""


@pytest.fixture
def injected(request: pytest.FixtureRequest) -> Iterator[Injected]:
    """What counts the injections of a test, which must make some."""
    counts: Counter[tuple[str, str]] = Counter()

    def count(fault: str, operation: str, count: int = 1) -> None:
        matrix.cell(fault, operation)
        counts[fault, operation] += count
        request.node.user_properties[:] = [
            *(each for each in request.node.user_properties if each[0] != _PROPERTY),
            *((_PROPERTY, (*cell, number)) for cell, number in counts.items()),
        ]

    yield count
    assert counts, "nothing was injected"


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

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take the injections of a test that has passed."""
        if report.when == "call" and report.passed:
            for name, value in report.user_properties:
                if name == _PROPERTY:
                    fault, operation, count = value  # type: ignore[misc]
                    self._counts[fault, operation] += count

    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """Write the table of a full run; one that has left out a cell has failed."""
        if not FULL or hasattr(self._config, "workerinput") or exitstatus != 0:
            return
        matrix.write(self._counts)
        if missing := [cell for cell in matrix.cells() if not self._counts[cell]]:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
            raise AssertionError(f"nothing was injected for {missing}")
