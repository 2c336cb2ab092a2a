"""The command, run as its user runs it: a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from attrs import evolve, frozen

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

# A test run in the background of a script ignores SIGINT, and so would its children.
COMMAND = ("env", "--default-signal=INT,HUP,TERM", sys.executable, "-m", "gitlab_backup_cli")
TIMEOUT = 120


@frozen
class Result:
    """How a run of the command has ended."""

    status: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """The one JSON document on standard output."""
        return json.loads(self.out)


@frozen
class Program:
    """The command in an environment."""

    environment: Mapping[str, str]
    cwd: Path | None = None
    prefix: tuple[str, ...] = ()
    """A program, with its arguments, that runs the command it is given."""
    command: tuple[str, ...] = COMMAND

    def __call__(self, *arguments: str | Path) -> Result:
        """Run the command to its end."""
        process = self.start(*arguments)
        out, err = process.communicate(timeout=TIMEOUT)
        return Result(process.returncode, out, err)

    def start(self, *arguments: str | Path, **streams: Any) -> subprocess.Popen[str]:
        """Start the command. Its standard streams are pipes, unless others are given."""
        pipes: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen(
            [*self.prefix, *self.command, *map(str, arguments)],
            env=dict(self.environment),
            cwd=self.cwd,
            text=True,
            errors="surrogateescape",
            **pipes | streams,
        )

    def below(self, *prefix: str) -> Program:
        """Return the command as another program runs it."""
        return evolve(self, prefix=prefix)

    def at(self, directory: Path) -> Program:
        """Return the command as it is started in a directory."""
        return evolve(self, cwd=directory)

    def having(self, **variables: str) -> Program:
        """Return the command with more variables in its environment."""
        return evolve(self, environment={**self.environment, **variables})
