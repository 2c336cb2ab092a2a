"""Measure this project beside the pipelines of GitLab's own tool.

All variants of a contest take turns, as whole processes. Data are made once, from a seed.
"""

from __future__ import annotations

import argparse
import shlex
import shutil
import sys
import tempfile
import time
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import evolve

from . import contest, document, results, server, tables
from .measure import BenchmarkError
from .place import FULL, QUICK, Place
from .removing import putting_aside
from .scenarios import SCENARIOS

if TYPE_CHECKING:
    from collections.abc import Iterator


def main() -> int:
    """Measure, and tell. Returns 1 where a variant failed, 2 where nothing could be measured; never for a time."""
    options = _options()
    try:
        found = results.Results.read(options.read) if options.read else _measure(options)
        if options.docs:
            document.write(found, options.docs)
    except BenchmarkError as error:
        _complain(str(error))
        return 2
    _say(tables.summary(found))
    return 1 if found.failed else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__, allow_abbrev=False)
    parser.add_argument(
        "scenario",
        nargs="*",
        metavar="scenario",
        help=f"what to measure, in place of everything: {', '.join(SCENARIOS)}",
    )
    parser.add_argument("--quick", action="store_true", help="a tenth of the sizes, one round: is everything in order?")
    parser.add_argument("--rounds", type=int, metavar="N", help="how often; default: 3, with --quick 1")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep the data in DIR, and use what is there")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what was found into FILE")
    parser.add_argument(
        "--docs", type=Path, metavar="DIR", help="write figures and charts into the documentation in DIR"
    )
    parser.add_argument("--read", type=Path, metavar="FILE", help="measure nothing: take what --json has written")
    options = parser.parse_args()
    unknown = sorted(set(options.scenario) - set(SCENARIOS))
    if unknown:
        parser.error(f"unknown scenario: {', '.join(unknown)}")
    if options.rounds is not None and options.rounds < 1:
        parser.error("--rounds: at least 1")
    if options.docs and not (options.docs / document.PAGE).is_file():
        parser.error(f"--docs: {options.docs / document.PAGE} does not exist")  # not only after an hour
    return options


def _measure(options: argparse.Namespace) -> results.Results:
    started, date = time.monotonic(), datetime.now(UTC)
    sizes = QUICK if options.quick else FULL
    rounds = options.rounds or (1 if options.quick else 3)
    found = results.Results(
        date=f"{date:%Y-%m-%d %H:%M}",
        command=_command(options, rounds),
        quick=options.quick,
        rounds=rounds,
        duration=0,
        machine={},
        outcomes=(),
    )
    with _directory(options.keep) as top:
        # Data of another size are other data.
        directory = top / ("quick" if options.quick else "full")
        directory.mkdir(exist_ok=True)
        free = shutil.disk_usage(directory).free
        if free < sizes.disk and not (directory / "postgresql").exists():
            raise BenchmarkError(f"{directory}: {free:,} bytes are free, {sizes.disk:,} are needed. See --keep.")
        with putting_aside(directory / "aside"), server.running(directory / "postgresql") as running:
            place = Place(directory=directory, server=running, sizes=sizes, say=_say)
            found = evolve(found, machine=results.describe_machine(directory, running.programs))
            for name in options.scenario or SCENARIOS:
                _say(f"\n{name}")
                try:
                    for each in SCENARIOS[name](place):
                        outcome = contest.hold(each, rounds=rounds, server=running, say=_say)
                        found = evolve(found, outcomes=(*found.outcomes, outcome))
                        _say(tables.shown(outcome))
                except BenchmarkError as error:
                    _say(f"  FAILED {name}: {error}")
                    found = evolve(found, broken=(*found.broken, f"{name}: {error}"))
                # After each, so that what is known is not lost with a run that does not come to its end.
                found = evolve(found, duration=time.monotonic() - started)
                if options.json:
                    found.write(options.json)
    return found


def _command(options: argparse.Namespace, rounds: int) -> str:
    """Return the command that measures the same, without what is of this machine only."""
    quick = ["--quick"] if options.quick else []
    return shlex.join(["python", "-m", "benchmarks", *quick, "--rounds", str(rounds), *options.scenario])


@contextmanager
def _directory(keep: Path | None) -> Iterator[Path]:
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
        yield keep.absolute()
        return
    with tempfile.TemporaryDirectory(prefix="gitlab-backup-bench-") as name:
        Path(name).chmod(0o755)  # within reach of the user that PostgreSQL runs as
        yield Path(name)


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _complain(line: str) -> None:
    sys.stderr.write(f"{line}\n")


if __name__ == "__main__":
    sys.exit(main())
