"""What a run has found, as a document."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Mapping  # noqa: TC003 - cattrs looks at it
from pathlib import Path
from typing import TYPE_CHECKING, Final

from attrs import evolve, frozen
from cattrs import Converter

from gitlab_backup.version import __version__

from .contest import Judged, Outcome  # noqa: TC001 - likewise
from .scenarios.words import MEMORY_GOAL

if TYPE_CHECKING:
    from collections.abc import Iterable

_PROGRAMS: Final = ("tar", "gzip", "pigz", "igzip", "zstd", "git", "bash")


@frozen(kw_only=True)
class Results:
    """A whole run."""

    date: str
    """When it began, UTC."""
    command: str
    quick: bool
    rounds: int
    duration: float
    """Seconds that the whole run took."""
    machine: Mapping[str, str]
    outcomes: tuple[Outcome, ...]
    broken: tuple[str, ...] = ()
    """Scenarios that ended early, and why."""

    @property
    def failed(self) -> list[str]:
        """What went wrong."""
        return [*self.broken, *(line for outcome in self.outcomes for line in outcome.failed)]

    @property
    def goals(self) -> list[Judged]:
        """All goals. The peak of memory is one, of all runs."""
        every = [goal for outcome in self.outcomes for goal in outcome.goals]
        memory = [goal for goal in every if goal.text == MEMORY_GOAL]
        found = [goal for goal in every if goal.text != MEMORY_GOAL]
        measured = [goal for goal in memory if goal.value is not None]
        if measured:
            most = max(measured, key=lambda goal: goal.highest)
            lowest = min(goal.lowest for goal in measured)
            met = most.highest <= most.bound
            found.append(evolve(most, value=most.highest, lowest=lowest, met=met))
        return found

    def write(self, path: Path) -> None:
        """Write it as JSON."""
        path.write_text(json.dumps(Converter().unstructure(self), indent=1) + "\n")

    @classmethod
    def read(cls, path: Path) -> Results:
        """Read what `write` has written."""
        return Converter().structure(json.loads(path.read_text()), cls)


def describe_machine(directory: Path, server_programs: Path) -> dict[str, str]:
    """Return what the figures depend on."""
    cores = len(os.sched_getaffinity(0))
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    programs = [_version(name) for name in _PROGRAMS]
    programs.append(_version(str(server_programs / "postgres")))
    return {
        "processor": f"{cores} cores, {_processor()}",
        "memory": f"{memory / (1 << 30):.0f} GiB",
        "system": f"{_system()}, Linux {platform.release().partition('-')[0]}",
        "file system": _file_system(directory),
        "python": platform.python_version(),
        "programs": "; ".join(version for version in programs if version),
        "project": _project(),
    }


def _processor() -> str:
    models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return models[0].partition(":")[2].strip() if models else platform.machine()


def _system() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", "Linux")
    except OSError:
        return "Linux"


def _file_system(directory: Path) -> str:
    device = directory.stat().st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split()
        if fields[2] == wanted:
            return fields[fields.index("-") + 1]
    return "unknown"


def _version(program: str) -> str:
    lines = _output([program, "--version"])
    return lines[0].strip("* ") if lines else ""


def _project() -> str:
    commit = _output(["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"])
    return " ".join([__version__, *commit])


def _output(command: Iterable[str]) -> list[str]:
    try:
        done = subprocess.run(["/usr/bin/env", *command], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return []
    return (done.stdout or done.stderr).splitlines()
