"""Programs that fail, put before the real ones in an instance's search path."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import evolve

if TYPE_CHECKING:
    from pathlib import Path

    from gitlab_backup import Instance


def with_program(instance: Instance, directory: Path, name: str, script: str) -> Instance:
    """Return `instance` with the shell script `script` in place of the program `name`; `$REAL` is the real one."""
    directory.mkdir(exist_ok=True)
    directory.chmod(0o755)
    program = directory / name
    program.write_text(f"#!/bin/sh\nREAL={instance.program(name)}\n{script}\n")
    program.chmod(0o755)
    return evolve(instance, search_path=f"{directory}:{instance.search_path}")
