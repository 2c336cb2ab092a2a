"""What the library shows to those who import it."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import gitlab_backup

LIBRARY = Path(gitlab_backup.__file__).parent
HEAVY = ("psycopg", "zstandard", "isal", "yaml", "cattrs", "typer", "rich", "sqlite3", "dbm", "hypothesis")

_WITHOUT = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"sqlite3", "dbm", "typer", "rich", "click", "hypothesis"}:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Missing())
import gitlab_backup, pkgutil, importlib
for module in pkgutil.walk_packages(gitlab_backup.__path__, "gitlab_backup."):
    if module.name != "gitlab_backup.strategies":
        importlib.import_module(module.name)
"""


def test_the_facade_is_complete() -> None:
    """Every name that is promised is there."""
    assert [name for name in gitlab_backup.__all__ if not hasattr(gitlab_backup, name)] == []
    assert {"Backup", "BackupStore", "Component", "Metadata", "BackupId", "Instance"} <= set(gitlab_backup.__all__)


def test_importing_loads_nothing_heavy() -> None:
    """A helper script that imports the library does not pay for what it does not use."""
    code = f"import gitlab_backup, sys; print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_module_imports_on_a_python_without_extras() -> None:
    """The Python of Omnibus has no `sqlite3` and no `dbm`, and nobody has to have typer."""
    done = subprocess.run([sys.executable, "-c", _WITHOUT], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_library_keeps_its_walls() -> None:
    """It never prints, knows no terminal, and reads the environment inside `instance/` only."""
    offences = []
    for file in sorted(LIBRARY.rglob("*.py")):
        relative = file.relative_to(LIBRARY)
        for node in ast.walk(ast.parse(file.read_text())):
            where = f"{relative}:{getattr(node, 'lineno', 0)}"
            if isinstance(node, ast.Name) and node.id == "print":
                offences.append(f"{where} prints")
            if (
                isinstance(node, ast.Attribute)
                and node.attr in {"environ", "getenv"}
                and relative.parts[0] != "instance"
            ):
                offences.append(f"{where} reads the environment")
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) and node.level == 0 else []
            offences += [
                f"{where} imports {name}" for name in names if name.split(".")[0] in {"typer", "rich", "click"}
            ]
    assert offences == []


_LEVELS = {
    "backup": 0,
    "operations": 1,
    "store": 2,
    "archivers": 3,
    "instance": 4,
    "components": 5,
    "metadata": 6,
    "manifest": 6,
    "checksums": 6,
    "backup_id": 6,
    "documents": 6,
    "retention": 6,
    "logs": 7,
    "streams": 7,
    "events": 8,
    "errors": 8,
    "version": 8,
}


def test_a_room_imports_only_from_rooms_below() -> None:
    """The order of the rooms in the architecture holds; what is imported for types alone counts for nothing."""
    offences = []
    for file in sorted(LIBRARY.rglob("*.py")):
        relative = file.relative_to(LIBRARY).with_suffix("")
        room = relative.parts[0]
        if room not in _LEVELS:
            continue
        tree = ast.parse(file.read_text())
        for_types = {
            inner
            for node in ast.walk(tree)
            if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
            for inner in ast.walk(node)
        }
        for node in ast.walk(tree):
            if not isinstance(node, ast.ImportFrom) or node in for_types or not node.level:
                continue
            package = ("gitlab_backup", *relative.parts[:-1])
            base = package[: len(package) - node.level + 1]
            target = (*base[1:], *(node.module or "").split("."))
            names = [target[0]] if target[0] else [alias.name for alias in node.names]
            offences += [f"{relative} imports {name}" for name in names if _LEVELS.get(name, 9) < _LEVELS[room]]
    assert offences == []
