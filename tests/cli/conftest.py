"""Fixtures of the command's tests."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from .program import Program

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.installation import ThrowawayInstallation


@pytest.fixture
def bare(tmp_path: Path) -> Program:
    """The command on a machine without an installation."""
    return Program({"PATH": os.environ["PATH"], "HOME": str(tmp_path), "LC_ALL": "C.UTF-8"})


@pytest.fixture
def program(installation: ThrowawayInstallation) -> Program:
    """The command on the machine of an installation of this test's own."""
    return Program({**installation.environment(), "GITLAB_PATH": str(installation.root)})


@pytest.fixture(scope="session")
def reader(template_installation: ThrowawayInstallation) -> Program:
    """The command on the machine of an installation that is not to be changed: give it another backup path."""
    return Program({**template_installation.environment(), "GITLAB_PATH": str(template_installation.root)})
