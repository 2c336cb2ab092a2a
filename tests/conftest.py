"""Fixtures that every test may use: a PostgreSQL server for each worker, databases, whole installations."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, settings

from tests.support import installation as installations
from tests.support import postgres

if TYPE_CHECKING:
    from collections.abc import Iterator

pytest_plugins = ["tests.faults.plugin"]

# Their assertions are to show what they compare, as those of tests do.
pytest.register_assert_rewrite(
    "tests.archivers.conformance", "tests.faults.outcomes", "tests.streams.codec_conformance"
)

settings.register_profile(
    "quick", max_examples=25, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("deep", settings.get_profile("quick"), max_examples=1000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))


def pytest_report_header() -> list[str]:
    """Say which programs the tests run on."""
    try:
        server = str(postgres.find_programs() / "postgres")
    except postgres.ProgramsMissingError as error:
        return [f"programs: {error}"]
    return ["programs: " + ", ".join(postgres.version(program) for program in (server, "git", "tar"))]


@pytest.fixture(scope="session")
def cluster() -> Iterator[postgres.Cluster]:
    """A PostgreSQL server of this worker: on a Unix socket, everybody trusted. Do not restart or kill it."""
    with postgres.cluster(in_memory=True) as server:
        yield server


@pytest.fixture
def database(cluster: postgres.Cluster) -> Iterator[str]:
    """The name of a fresh, empty database on `cluster`."""
    name = f"test_{uuid4().hex}"
    cluster.create_database(name)
    yield name
    cluster.drop_database(name)


@pytest.fixture(scope="session")
def template_installation(cluster: postgres.Cluster) -> installations.ThrowawayInstallation:
    """An installation to copy and to read. Do not change it, and leave no connection to its databases open."""
    return installations.build(cluster.directory / "template", cluster)


@pytest.fixture
def installation(
    cluster: postgres.Cluster, template_installation: installations.ThrowawayInstallation
) -> Iterator[installations.ThrowawayInstallation]:
    """A throwaway installation of this test's own, to back up, change and restore.

    It lies beside the server's files: those go even when the tests are killed, and, unlike `tmp_path`, are
    within reach of the system user that it belongs to.
    """
    copy = template_installation.copy(cluster.directory / f"installation-{uuid4().hex[:8]}")
    yield copy
    copy.remove()
