"""Where the command starts and ends: its signals, its standard streams, its exit status."""

from __future__ import annotations

import gc
import os
import sys

from .boundary import boundary
from .output import close_streams, prepare_streams, write
from .signals import Signals

PROGRAM = "gitlab-backup-cli"
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
"""From `malloc.h` of the GNU C library."""
_LARGEST_PIECE = 32 << 20
_KEPT = 64 << 20
"""Bytes of free memory that are not given back to the system."""


def run(arguments: list[str]) -> int:
    """Run the command, and return its exit status."""
    prepare_streams()
    with Signals() as signals:
        debug = bool(os.environ.get("GITLAB_BACKUP_DEBUG"))
        status = boundary(lambda: _dispatch(arguments, signals), debug=debug or "--debug" in arguments)
    status = close_streams(status)
    if signals.status is not None:
        # Everything is put back and said. A thread that still reads from a program must not hold the process.
        os._exit(status)
    return status


def _dispatch(arguments: list[str], signals: Signals) -> int:
    # What monitoring asks for often should not wait for an argument parser, whose import is most of the time.
    if arguments in (["version"], ["--version"]):
        from .commands.version import text

        write(text())
        return 0
    from typer.main import get_command

    from .app import app
    from .completion import VARIABLE, complete
    from .session import Session
    from .settings import name_variables

    _tune_memory()
    # What was imported stays to the end: without this, each look for garbage would go through all of it.
    gc.freeze()

    # The status of a command that ends through `typer.Exit`; else what the command returns, which is nothing.
    command = get_command(app)
    name_variables(command)

    def start() -> int:
        return command(arguments, prog_name=PROGRAM, standalone_mode=False, obj=Session(signals)) or 0

    if VARIABLE in os.environ:
        return complete(start)
    return start()


def _tune_memory() -> None:
    """Have the threads share two heaps: each would reserve 64 MiB of its own, and few of its bytes would ever be used.

    It matters where address space is limited: setrlimit(2), RLIMIT_AS. See mallopt(3), M_ARENA_MAX; other C
    libraries than GNU's have no such call, and need none.
    """
    import ctypes

    if mallopt := getattr(ctypes.CDLL(None), "mallopt", None):
        mallopt(_M_ARENA_MAX, 2)
        # Pieces of streams, which are large, are used again: to give each back would cost page faults for the next.
        mallopt(_M_MMAP_THRESHOLD, _LARGEST_PIECE)
        mallopt(_M_TRIM_THRESHOLD, _KEPT)


def main() -> None:
    """Run the command with the arguments of this process."""
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
