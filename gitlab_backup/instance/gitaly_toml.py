"""Gitaly's own configuration: where its storages lie, if `gitlab.yml` does not say."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from .. import toml
from .section import Problems, Section, refuse
from .yaml_file import read_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable

_OMNIBUS = Path("/var/opt/gitlab/gitaly/config.toml")


def candidates(installation: str, root: Path, gitlab_yml: Path) -> tuple[Path, ...]:
    """Return where Gitaly's `config.toml` may be.

    Omnibus keeps it in its data directory, two levels above `gitlab-rails/etc/gitlab.yml`; an installation from
    source has Gitaly in a directory beside GitLab's ("Self-compiled installation", section "Install Gitaly").
    """
    if installation == "omnibus":
        return tuple(dict.fromkeys((gitlab_yml.parent.parent.parent / "gitaly" / "config.toml", _OMNIBUS)))
    return (root.parent / "gitaly" / "config.toml",)


def first_existing(files: Iterable[Path]) -> Path | None:
    """Return the first of the files that is there."""
    for file in files:
        try:
            if file.is_file():
                return file
        except OSError:
            continue  # A directory that may not be entered: as good as not there, and said where a path is missed.
    return None


def storage_paths(file: Path) -> dict[str, tuple[Path, str]]:
    """Return the path of each storage by name, with the place that says so.

    Raises `ConfigurationError` where the file cannot be read or is not TOML.
    """
    data = read_bytes(file)
    try:
        values = toml.parse(data)
    except ValueError as error:
        # Only the place is taken from the parser's message, which may quote the file.
        place = re.search(r"\(at (line \d+, column \d+)\)", str(error))
        refuse(file, f"is not valid TOML{f' at {place[1]}' if place else ''}", hint="Correct Gitaly's configuration.")
    top = Section(Problems(str(file)), (), dict(values.items()))
    storages = values.get("storage", [])
    if not isinstance(storages, list):
        top.wrong("storage", "must be a list of tables: [[storage]]")
        storages = []
    paths = {}
    numbered = Section(top.problems, ("storage",), {str(number): table for number, table in enumerate(storages)})
    for number in range(len(storages)):
        table = numbered.section(str(number))
        name, path = table.string("name"), table.string("path")
        if name is None or path is None:
            table.wrong("name" if name is None else "path", "is missing")
        elif not path.startswith("/"):
            table.wrong("path", "must be an absolute path")
        else:
            paths[name] = (Path(path), table.source("path"))
    top.problems.check()
    return paths
