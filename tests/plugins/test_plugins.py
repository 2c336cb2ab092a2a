"""Archivers and codecs of other distributions: found by name, used as if they were built in, and refused by name."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from gitlab_backup import Backup, GitLabBackupError
from gitlab_backup.archivers.registry import archiver_named
from gitlab_backup.errors import ExitStatus, PluginError, UsageError
from gitlab_backup.streams.codec import codec_for, codec_named, codec_names
from tests.cli.program import Program
from tests.support import compare

from .installing import ARCHIVERS, CODECS, EXAMPLE, install, install_example

if TYPE_CHECKING:
    from collections.abc import Callable

    from gitlab_backup.archivers.base import Archiver
    from gitlab_backup.streams.codec import Codec
    from tests.support.installation import ThrowawayInstallation


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory on the path of this process, to install into."""
    directory = tmp_path / "site"
    directory.mkdir()
    monkeypatch.syspath_prepend(directory)
    return directory


@pytest.fixture
def bare(installation: ThrowawayInstallation) -> Program:
    """The command without plug-ins."""
    return Program({**installation.environment(), "GITLAB_PATH": str(installation.root)})


@pytest.fixture
def program(bare: Program, tmp_path: Path) -> Program:
    """The command with the example installed."""
    return bare.having(PYTHONPATH=str(install_example(tmp_path / "packages")))


def spoil(installation: ThrowawayInstallation) -> None:
    """Change a database and the uploads."""
    installation.cluster.psql("DELETE FROM issues", installation.databases["main"])
    (installation.directories["uploads"] / "odd" / "run").unlink()
    (installation.directories["uploads"] / "later").write_bytes(b"not in the backup")


def test_through_the_command(program: Program, bare: Program, installation: ThrowawayInstallation) -> None:
    """Backup, verification and restore go through the plug-ins; without them, they say what is not installed."""
    uploads = installation.directories["uploads"]
    before = compare.tree(uploads, leave_out="tmp")
    options = (
        "--only",
        "uploads",
        "--compression",
        "bzip2",
        "--compression-level",
        "3",
        "--archiver",
        "uploads=gnutar",
    )
    planned = program("backup", "all", *options, "--dry-run", "--json").document
    assert ["gnutar"] == [each["archiver"] for each in planned["components"] if each["status"] == "planned"]
    made = program("backup", "all", *options, "--json")
    assert (0, "gnutar") == (made.status, next(c["archiver"] for c in made.document["components"] if c["bytes_read"]))
    directory = Path(made.document["path"])
    with tarfile.open(directory / "uploads.tar.bz2", "r:bz2") as archive:
        names = archive.getnames()
    assert "./odd/run" in names
    assert not [name for name in names if "half-uploaded" in name]
    manifest = json.loads((directory / "manifest.json").read_bytes())
    assert {"codec": "bzip2", "level": 3} == manifest["compression"]

    assert 0 == program("verify", "latest").status
    without = bare("verify", "latest", "--json")
    assert ExitStatus.DAMAGED == without.status
    assert ["uploads was backed up by the archiver gnutar, which is not installed here"] == [
        each["problem"] for each in without.document["damages"]
    ]

    (uploads / "odd" / "run").unlink()
    (uploads / "later").write_bytes(b"not in the backup")
    spoilt = compare.tree(uploads)
    refused = bare("restore", "all", "latest", "--yes")
    assert ExitStatus.FAILED == refused.status
    assert "archiver gnutar, which is not installed here" in refused.err
    assert spoilt == compare.tree(uploads)
    restored = program("restore", "all", "latest", "--yes", "--json")
    assert 0 == restored.status, restored.err
    assert [] == compare.tree_differences("uploads", before, compare.tree(uploads, leave_out="tmp"))
    assert [] == list((uploads / "tmp").iterdir())


def test_through_the_library(site: Path, installation: ThrowawayInstallation) -> None:
    """Databases and files are as they were after a restore through the plug-ins."""
    install_example(site)
    before = compare.snapshot(installation)
    instance = installation.instance()
    backup = Backup.create(
        instance, only=["db", "uploads", "builds"], compression="bzip2", archivers={"uploads": "gnutar"}
    )
    names = sorted(p.name for p in backup.path.rglob("*.bz2"))
    assert ["builds.tar.bz2", "ci_database.sql.bz2", "database.sql.bz2", "uploads.tar.bz2"] == names
    assert () == backup.verify().damages
    spoil(installation)
    assert [] != compare.differences(before, compare.snapshot(installation))
    backup.restore(instance)
    assert [] == compare.differences(before, compare.snapshot(installation))


def test_in_another_process(installation: ThrowawayInstallation, tmp_path: Path) -> None:
    """A script that has the example on its path, and knows nothing of it but the names, can use it."""
    site = install_example(tmp_path / "packages")
    script = (
        "import sys; from gitlab_backup import Backup, Instance\n"
        "instance = Instance.discover()\n"
        "backup = Backup.create(instance, only=['pages'], compression='bzip2', archivers={'pages': 'gnutar'})\n"
        "assert not backup.verify().damages\n"
        "backup.restore(instance)\n"
        "print(backup.manifest.component('pages').archiver)\n"
    )
    environment = {**installation.environment(), "GITLAB_PATH": str(installation.root), "PYTHONPATH": str(site)}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert ("gnutar\n", "") == (done.stdout, done.stderr)


def test_codec_that_is_not_installed(site: Path, installation: ThrowawayInstallation) -> None:
    """A file that nothing here can read is said to be that, and not taken for one that is not compressed."""
    install_example(site)
    instance = installation.instance()
    backup = Backup.create(instance, only=["uploads"], compression="bzip2")
    (next(site.glob("*.dist-info")) / "entry_points.txt").write_text("")
    missing = "the backup was compressed with bzip2, which is not installed here"
    assert [missing] == [damage.problem for damage in backup.verify().damages]
    with pytest.raises(PluginError, match=missing) as caught:
        backup.restore(instance)
    assert CODECS in str(caught.value.hint)


@pytest.mark.parametrize(
    ("option", "value", "names"),
    [
        ("--compression", "rar", ("unknown compression: rar", "gzip, zstd, none, bzip2 (of gitlab-backup-gnutar 1.0)")),
        ("--archiver", "uploads=zip", ("unknown archiver: zip", "gitaly, gnutar (of gitlab-backup-gnutar 1.0)")),
        ("--archiver", "upload=gnutar", ("unknown component: upload", "uploads")),
        ("--archiver", "gnutar", ("COMPONENT=NAME", "'gnutar'")),
        ("--archiver", "uploads=git", ("the archiver git does not work on uploads", "files")),
        ("--archiver", "db=gitaly", ("the archiver gitaly does not work on db", "database")),
    ],
)
def test_unknown_names(program: Program, option: str, value: str, names: tuple[str, ...]) -> None:
    """What does not exist is a usage error that names what does, with the distribution that brings it."""
    result = program("backup", "all", option, value)
    assert ExitStatus.USAGE == result.status
    assert [] == [name for name in names if name not in result.err]


def test_two_archivers_for_one_component(program: Program) -> None:
    """Which one was meant cannot be known."""
    result = program("backup", "all", "--archiver", "uploads=gnutar", "--archiver", "uploads=files")
    assert ExitStatus.USAGE == result.status
    assert "two archivers are given for uploads: gnutar and files" in result.err


def test_two_archivers_for_the_repositories(installation: ThrowawayInstallation) -> None:
    """Nor where one of them is given among the options of the repositories; the same twice is no contradiction."""
    from gitlab_backup import RepositoryOptions

    instance, options = installation.instance(), RepositoryOptions(archiver="git")
    with pytest.raises(UsageError, match="git and gitaly"):
        Backup.plan(instance, repositories=options, archivers={"repositories": "gitaly"})
    planned = Backup.plan(instance, repositories=options, archivers={"repositories": "git"})
    assert ["git"] == [item.archiver.name for item in planned if item.component.id == "repositories"]
    planned = Backup.plan(instance, archivers={"repositories": "git"})
    assert ["git"] == [item.archiver.name for item in planned if item.component.id == "repositories"]


# What is no good

_CODEC = "class Good:\n    name, suffix, levels, default_level = '{name}', '.x', range(0), 0\n"
_CODEC += (
    "    def writer(self, sink, *, level=None, pool=None): return sink\n    def reader(self, source): return source\n"
)
_ARCHIVER = "class Good:\n    name = '{name}'\n"
_METHODS = ("left_out", "prepare", "back_up", "verify", "plan_restore", "stage", "swap", "committed", "undo", "finish")
_ARCHIVER += "".join(f"    def {method}(self, *arguments): pass\n" for method in _METHODS)
_GOOD = {ARCHIVERS: _ARCHIVER, CODECS: _CODEC}
_FIND: dict[str, Callable[[str], Archiver | Codec]] = {ARCHIVERS: archiver_named, CODECS: codec_named}


def register(site: Path, group: str, source: str, attribute: str = "Good") -> str:
    """Install a distribution with one plug-in, whose module no other test has, and return its name."""
    name = f"plugin_{uuid4().hex[:8]}"
    module = f"module_{name}"
    install(site, f"dist-{name}", "2.1", {group: {name: f"{module}:{attribute}"}}, **{module: source.format(name=name)})
    return name


def refusal(group: str, name: str) -> PluginError:
    """Return the error that a plug-in gets, which must name its distribution and entry point."""
    with pytest.raises(PluginError) as caught:
        _FIND[group](name)
    message = caught.value.message
    assert f"the plug-in {name} of dist-{name} 2.1 (entry point {group}: module_{name}:" in message
    assert f"dist-{name} 2.1" in str(caught.value.hint)
    return caught.value


@pytest.mark.parametrize("group", [ARCHIVERS, CODECS])
class TestNoGood:
    """What is wrong with a plug-in is said, and whose it is."""

    def test_good(self, site: Path, group: str) -> None:
        """The one that the others here are made from is accepted."""
        name = register(site, group, _GOOD[group])
        assert name == _FIND[group](name).name

    def test_module_that_does_not_exist(self, site: Path, group: str) -> None:
        """It cannot be imported."""
        name = register(site, group, _GOOD[group])
        (site / f"module_{name}.py").unlink()
        assert "cannot be loaded: ModuleNotFoundError: No module named" in refusal(group, name).message

    def test_module_that_fails(self, site: Path, group: str) -> None:
        """What it raises when it is imported is told."""
        name = register(site, group, "raise RuntimeError('a library of mine is too old')")
        assert "cannot be loaded: RuntimeError: a library of mine is too old" in refusal(group, name).message

    def test_class_that_does_not_exist(self, site: Path, group: str) -> None:
        """The module has nothing of that name."""
        name = register(site, group, _GOOD[group], "Renamed")
        assert "has no attribute 'Renamed'" in refusal(group, name).message

    def test_class_that_takes_arguments(self, site: Path, group: str) -> None:
        """It cannot be made."""
        name = register(site, group, _GOOD[group] + "    def __init__(self, password): pass\n")
        assert "missing 1 required positional argument: 'password'" in refusal(group, name).message

    def test_missing_members(self, site: Path, group: str) -> None:
        """Every member that it lacks is named, and none that it has."""
        lacking = {ARCHIVERS: ("def verify", "def undo"), CODECS: ("def writer", "def reader")}[group]
        source = _GOOD[group]
        for member in lacking:
            source = source.replace(member, member.replace("def ", "def not_"))
        problem = refusal(group, register(site, group, source)).message.rpartition(": ")[2]
        assert sorted(member.removeprefix("def ") for member in lacking) == sorted(
            problem.removeprefix("it has no ").split(", ")
        )

    def test_another_name(self, site: Path, group: str) -> None:
        """Backups would record a name by which it is not found again."""
        name = register(site, group, _GOOD[group].replace("{name}", "other"))
        assert "calls itself 'other': its name must be that of the entry point" in refusal(group, name).message

    def test_two_of_one_name(self, site: Path, group: str) -> None:
        """Which one made a backup could not be known: both distributions are named."""
        name = register(site, group, _GOOD[group])
        install(site, "another", "0.3", {group: {name: f"module_{name}:Good"}})
        with pytest.raises(PluginError, match=f"another 0.3 and dist-{name} 2.1"):
            _FIND[group](name)

    def test_name_of_a_built_in_one(self, site: Path, group: str) -> None:
        """A plug-in cannot put itself into the place of a built-in one."""
        built_in = {ARCHIVERS: "files", CODECS: "gzip"}[group]
        install(site, "usurper", "1", {group: {built_in: "usurper:Good"}}, usurper="raise SystemExit(1)")
        assert type(_FIND[group](built_in)).__module__.startswith("gitlab_backup.")


@pytest.mark.parametrize("suffix", ["x", ".", ".tar.x", "./x", ".x\n"])
def test_suffix_that_nothing_finds_again(site: Path, suffix: str) -> None:
    """Archivers look for their files by name and one suffix."""
    name = register(site, CODECS, _CODEC.replace("'.x'", repr(suffix)))
    assert f"has the suffix {suffix!r}" in refusal(CODECS, name).message


def test_one_that_is_no_good_disturbs_no_other(site: Path) -> None:
    """Names are listed and files are read by the codec of their suffix, whatever else is installed."""
    broken = register(site, CODECS, "raise RuntimeError")
    good = register(site, CODECS, _CODEC)
    assert {broken, good} <= set(codec_names())
    assert ["none", good, "gzip"] == [codec_for(name).name for name in ("uploads.tar", "uploads.tar.x", "a.gz")]


def test_through_the_boundary_of_the_command(bare: Program, tmp_path: Path) -> None:
    """The command says it in two lines, and has status 1."""
    name = register(tmp_path / "site", ARCHIVERS, "import nothing_of_this_name")
    result = bare.having(PYTHONPATH=str(tmp_path / "site"))("backup", "all", "--archiver", f"uploads={name}")
    assert ExitStatus.FAILED == result.status
    assert f"error: the plug-in {name} of dist-{name} 2.1 (entry point {ARCHIVERS}: module_{name}:Good)" in result.err
    assert f"hint: Repair, update or uninstall dist-{name} 2.1.\n" in result.err


def test_details_that_are_not_json(site: Path, installation: ThrowawayInstallation) -> None:
    """What no manifest can hold is that component's failure, and nothing is published."""
    source = _ARCHIVER.replace("def left_out(self, *arguments): pass", "def left_out(self, *arguments): return None")
    source = source.replace("def back_up(self, *arguments): pass", "def back_up(self, job): return {{'at': object()}}")
    name = register(site, ARCHIVERS, source)
    with pytest.raises(GitLabBackupError, match="uploads: ") as caught:
        Backup.create(installation.instance(), only=["uploads"], archivers={"uploads": name})
    assert "object" in caught.value.message
    assert () == Backup.all(installation.backup_path)


def test_example_is_in_the_documentation() -> None:
    """The page shows the code that is tested here, not a copy of it."""
    root = Path(__file__).parent.parent.parent
    page = (root / "docs" / "how-to-write-an-archiver.md").read_text()
    included = [line.split()[-1] for line in page.splitlines() if line.startswith("```{literalinclude}")]
    wanted = ("gitlab_backup_gnutar.py", "pyproject.toml", "gitlab_backup_bzip2.py")
    assert {os.path.relpath(EXAMPLE / name, root / "docs") for name in wanted} <= set(included)


if TYPE_CHECKING:
    # mypy compares the example with the protocols.
    from .example.gitlab_backup_bzip2 import Bzip2Codec
    from .example.gitlab_backup_gnutar import GnuTarArchiver

    _archiver: Archiver = GnuTarArchiver()
    _codec: Codec = Bzip2Codec()
