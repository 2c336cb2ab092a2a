"""Running a script as whole processes, and what that took."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from attrs import frozen

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .server import Server

_LAUNCHER: Final = Path(__file__).parent / "launcher.py"
_LINES: Final = 20


class BenchmarkError(Exception):
    """Something that must work did not, so that there is nothing to measure."""


@frozen(kw_only=True)
class Measurement:
    """What one run took."""

    wall: float
    """Seconds from the start to the end."""
    cpu: float
    """Seconds of processor time of all its processes, in user and system mode."""
    server_cpu: float
    """The same of PostgreSQL's own processes meanwhile."""
    peak: int
    """Bytes of memory that its largest process had at most."""
    output: int = 0
    """Bytes of the files that it made."""


def environment() -> dict[str, str]:
    """Return the environment of everything that is measured: `gitlab-backup-cli` is that of this Python."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    return {"PATH": path, "LC_ALL": "C.UTF-8", "TZ": "UTC", "HOME": "/nonexistent", **_GIT}


# Nothing of the user's own configuration, as in this project; and repositories of others are read, as root.
_GIT: Final = {
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_COUNT": "1",
    "GIT_CONFIG_KEY_0": "safe.directory",
    "GIT_CONFIG_VALUE_0": "*",
}


def run(script: str, *, variables: Mapping[str, str] | None = None, server: Server | None = None) -> Measurement:
    """Run a script of bash, and measure it. A failure of any part of a pipeline raises `BenchmarkError`."""
    with tempfile.TemporaryDirectory(prefix="gitlab-backup-bench-") as directory:
        report = Path(directory) / "report"
        command = [sys.executable, "-I", "-S", str(_LAUNCHER), str(report)]
        command += ["bash", "-c", f"set -euo pipefail\n{script}"]
        before = server.cpu() if server is not None else 0.0
        done = subprocess.run(
            command,
            env={**environment(), **(variables or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            check=False,
        )
        server_cpu = server.cpu() - before if server is not None else 0.0
        words = report.read_text().split() if report.exists() else ["1", "0", "0", "0"]
    status, wall, cpu, peak = int(words[0]), float(words[1]), float(words[2]), int(words[3])
    if status or done.returncode:
        last = "\n".join(done.stderr.decode(errors="replace").splitlines()[-_LINES:])
        raise BenchmarkError(f"exit status {status} of: {script.strip()}\n{last}")
    return Measurement(wall=wall, cpu=cpu, server_cpu=server_cpu, peak=peak)


def read(script: str, *, variables: Mapping[str, str] | None = None) -> str:
    """Run a script of bash, and return what it prints. Raises `BenchmarkError`."""
    done = subprocess.run(
        ["/usr/bin/env", "bash", "-c", f"set -euo pipefail\n{script}"],
        env={**environment(), **(variables or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    if done.returncode:
        raise BenchmarkError(f"exit status {done.returncode} of: {script}\n{done.stderr.decode(errors='replace')}")
    return done.stdout.decode(errors="surrogateescape")


def size_of(path: Path) -> int:
    """Return the bytes of a file, or of all files below a directory; 0 where there is nothing."""
    if path.is_dir():
        return sum(size_of(Path(entry)) for entry in os.scandir(path) if not entry.is_symlink())
    return path.stat().st_size if path.exists() else 0
