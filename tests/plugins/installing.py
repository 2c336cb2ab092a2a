"""Installs distributions as an installer leaves them: modules, and a directory `….dist-info` beside them."""

from __future__ import annotations

import importlib
import shutil
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

EXAMPLE = Path(__file__).parent / "example"
ARCHIVERS = "gitlab_backup.archivers"
CODECS = "gitlab_backup.codecs"


def install_example(site: Path) -> Path:
    """Install the example of the documentation into the directory `site`, and return that."""
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]
    install(site, project["name"], project["version"], project["entry-points"])
    for module in EXAMPLE.glob("gitlab_backup_*.py"):
        shutil.copy(module, site)
    return site


def install(site: Path, name: str, version: str, groups: Mapping[str, Mapping[str, str]], **modules: str) -> None:
    """Install a distribution with these entry points, by group, and the sources of these modules."""
    information = site / f"{name.replace('-', '_')}-{version}.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    lines = []
    for group, entries in groups.items():
        lines += [f"[{group}]", *(f"{entry} = {value}" for entry, value in entries.items()), ""]
    (information / "entry_points.txt").write_text("\n".join(lines))
    for module, source in modules.items():
        (site / f"{module}.py").write_text(source)
    importlib.invalidate_caches()
