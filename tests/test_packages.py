"""The two packages: what is in them, and what they do where nothing else is installed."""

from __future__ import annotations

import subprocess
import sys
import tarfile
from email.parser import Parser
from pathlib import Path
from typing import TYPE_CHECKING
from zipfile import ZipFile

import pytest
from attrs import frozen

from gitlab_backup import BackupStore, __version__
from tests.cli.program import Program
from tests.operations.changes import change
from tests.support import compare, pythons

if TYPE_CHECKING:
    from email.message import Message

    from tests.support.installation import ThrowawayInstallation

PROJECT = Path(__file__).parents[1]


@frozen
class Package:
    """One of the two, as it is built for whoever installs it."""

    name: str
    source: Path
    module: str
    wheel: Path
    sdist: Path

    def metadata(self) -> Message:
        """Return what it says about itself."""
        with ZipFile(self.wheel) as archive:
            (name,) = (each for each in archive.namelist() if each.endswith(".dist-info/METADATA"))
            return Parser().parsestr(archive.read(name).decode())


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Package]:
    """The library and the command: an sdist, and the wheel that is built from that."""
    directory = tmp_path_factory.mktemp("packages")
    made = {}
    for name, source, module in (
        ("gitlab-backup-core", PROJECT, "gitlab_backup"),
        ("gitlab-backup-cli", PROJECT / "cli", "gitlab_backup_cli"),
    ):
        pythons.uv("build", "--out-dir", directory, source)
        (wheel,) = directory.glob(f"{name.replace('-', '_')}-*.whl")
        (sdist,) = directory.glob(f"{name.replace('-', '_')}-*.tar.gz")
        made[name] = Package(name, source, module, wheel, sdist)
    return made


@pytest.fixture(params=["gitlab-backup-core", "gitlab-backup-cli"])
def package(request: pytest.FixtureRequest, packages: dict[str, Package]) -> Package:
    """Each of the two."""
    return packages[request.param]


def install(packages: dict[str, Package], version: str, directory: Path) -> Path:
    """Install both into an empty environment of that version of Python, and return the directory of its programs."""
    try:
        python = pythons.create_environment(version, directory)
    except pythons.PythonMissingError as error:
        pytest.skip(str(error))
    pythons.uv("pip", "install", "--python", python, *(each.wheel for each in packages.values()))
    pythons.uv("pip", "check", "--python", python)
    return python.parent


def test_contents(package: Package) -> None:
    """A wheel has all of its module, the licence, and nothing else that could be imported: no test."""
    here = [path for path in (package.source / package.module).rglob("*") if path.is_file()]
    expected = {str(path.relative_to(package.source)) for path in here if path.parent.name != "__pycache__"}
    with ZipFile(package.wheel) as archive:
        (licence,) = (name for name in archive.namelist() if name.endswith(".dist-info/licenses/LICENSE"))
        assert (PROJECT / "LICENSE").read_bytes() == archive.read(licence)
        parts = {name for name in archive.namelist() if ".dist-info/" not in name and ".data/data/" not in name}
    assert expected == parts
    assert f"{package.module}/py.typed" in parts


def test_metadata(package: Package) -> None:
    """A wheel says what the package is, for which versions of Python, and which of the other belongs to it."""
    found = package.metadata()
    assert [package.name, __version__, "MIT"] == [found[key] for key in ("Name", "Version", "License-Expression")]
    assert f">={pythons.VERSIONS[0]}" == found["Requires-Python"]
    classifiers = found.get_all("Classifier", [])
    expected = ["Typing :: Typed", *(f"Programming Language :: Python :: {version}" for version in pythons.VERSIONS)]
    assert [] == [each for each in expected if each not in classifiers]
    assert found["Summary"]
    assert found["Keywords"]
    assert "text/markdown" == found["Description-Content-Type"]
    assert str(found.get_payload()).startswith("# ")
    if package.name == "gitlab-backup-cli":
        assert f"gitlab-backup-core=={__version__}" in found.get_all("Requires-Dist", [])


def test_sdist(package: Package, tmp_path: Path) -> None:
    """The sdist has no test, and its wheel is, byte for byte, the one that is built without that detour."""
    with tarfile.open(package.sdist) as archive:
        parts = {Path(name).parts[1] for name in archive.getnames()}
    assert {package.module, "pyproject.toml", "LICENSE", "README.md", "PKG-INFO"} <= parts
    assert "tests" not in parts
    pythons.uv("build", "--wheel", "--out-dir", tmp_path, package.source)
    assert package.wheel.read_bytes() == (tmp_path / package.wheel.name).read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("version", pythons.VERSIONS)
def test_installed(
    packages: dict[str, Package], installation: ThrowawayInstallation, tmp_path: Path, version: str
) -> None:
    """With nothing but the wheels, all that was backed up is there again, and no Python has anything to warn of."""
    programs = install(packages, version, tmp_path / "environment")
    surroundings = {**installation.environment(), "GITLAB_PATH": str(installation.root), "PYTHONWARNINGS": "error"}
    program = Program(surroundings, cwd=tmp_path, command=(str(programs / "gitlab-backup-cli"),))
    before = compare.snapshot(installation)

    def run(*arguments: str) -> str:
        result = program(*arguments)
        assert (0, "") == (result.status, result.err)
        return result.out

    assert f"gitlab-backup-cli {__version__}\n" == run("version")
    assert "restore" in run("--help")
    # Where man(1) and the shells look for those of a program in that prefix.
    share = programs.parent / "share"
    assert (share / "man" / "man1" / "gitlab-backup-cli.1").is_file()
    assert (share / "bash-completion" / "completions" / "gitlab-backup-cli").is_file()
    assert str(installation.root) in run("config", "show")
    assert ": complete; " in run("backup", "all").splitlines()[-1]
    (backup,) = BackupStore(installation.backup_path).ids()
    assert backup in run("list")
    assert "intact" in run("verify", "latest")
    change(installation, seed=5)
    assert f"restore {backup}: complete; " in run("restore", "all", "latest", "--yes")
    assert [] == compare.differences(before, compare.snapshot(installation))


def test_types(packages: dict[str, Package], tmp_path: Path) -> None:
    """A type checker sees the types of the installed library, and an error in their use."""
    programs = install(packages, f"{sys.version_info.major}.{sys.version_info.minor}", tmp_path / "environment")
    user = tmp_path / "user.py"
    user.write_text("from gitlab_backup import Backup, Instance\nwrong: int = Backup.create(Instance.discover()).id\n")
    options = ("--strict", "--config-file=", "--no-incremental", "--python-executable", programs / "python")
    found = subprocess.run(
        [sys.executable, "-m", "mypy", *options, user], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    error, _ = found.stdout.splitlines()
    assert 'user.py:2: error: Incompatible types in assignment (expression has type "str", variable' in error
