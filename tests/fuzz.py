"""Coverage-guided fuzzing of every reader, with atheris: `nox -s fuzz`, or `nox -s fuzz -- --seconds 600 metadata`.

Each reader has a process of its own, which ends at the first exception that is none of ours, and leaves the input that
caused it in the present directory.
"""

from __future__ import annotations

import argparse
import importlib
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

_LONGEST = 1 << 16
"""Bytes of an input."""


def main() -> int:
    """Fuzz the readers that are named, or all, one after the other. Returns 1 where one has failed."""
    parser = argparse.ArgumentParser(prog="nox -s fuzz --", description=__doc__)
    parser.add_argument("reader", nargs="*", help="default: all")
    parser.add_argument("--seconds", type=int, default=20, help="for each of them; default: 20")
    options = parser.parse_args()
    from tests.test_readers import READERS

    names = [reader.name for reader in READERS]
    if unknown := set(options.reader) - set(names):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    failed = []
    for reader in READERS:
        if options.reader and reader.name not in options.reader:
            continue
        with tempfile.TemporaryDirectory() as corpus:
            (Path(corpus) / "valid").write_bytes(reader.valid)
            limits = [
                f"-max_total_time={options.seconds}",
                f"-max_len={_LONGEST}",
                "-timeout=10",
                "-print_final_stats=1",
            ]
            command = [
                sys.executable,
                "-m",
                "tests.fuzz",
                "--one",
                reader.name,
                *limits,
                "-print_final_stats=1",
                corpus,
            ]
            sys.stdout.write(f"{reader.name}: {options.seconds} seconds\n")
            sys.stdout.flush()
            done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
        executed = [line.split()[-1] for line in done.stderr.splitlines() if "number_of_executed_units" in line]
        sys.stdout.write(f"  {executed[0] if executed else 'unknown'} inputs, status {done.returncode}\n")
        if done.returncode:
            sys.stdout.write(done.stderr)
            failed.append(reader.name)
    sys.stdout.write(f"failed: {', '.join(failed)}\n" if failed else "every reader took, or refused, every input\n")
    return bool(failed)


def fuzz(name: str, arguments: list[str]) -> None:
    """Fuzz one reader until the limits are reached. Does not return."""
    atheris: Any = importlib.import_module("atheris")
    with atheris.instrument_imports(include=["gitlab_backup"]):
        from gitlab_backup.errors import GitLabBackupError
        from tests.test_readers import READERS
    (reader,) = (each for each in READERS if each.name == name)

    def one(data: bytes) -> None:
        with tempfile.TemporaryDirectory() as directory, suppress(GitLabBackupError):
            reader.read(data, Path(directory))

    atheris.Setup([name, *arguments], one)
    atheris.Fuzz()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        fuzz(sys.argv[2], sys.argv[3:])
    sys.exit(main())
