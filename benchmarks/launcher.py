"""Runs a program and writes what it took into a file. A process of its own, as small as Python can be.

The kernel counts the memory of the process that starts a program as the program's own until that replaces it
(`setmax_mm_hiwater_rss` in Linux's `fs/exec.c`): started from here, no program seems to need more than it does.
What is less than this process takes (about 9 MB) cannot be seen.

python -I -S launcher.py FILE PROGRAM [ARGUMENT…]
"""

import os
import sys
import time


def main() -> int:
    """Run the program. Returns 0, whatever became of it: that is in the file."""
    report, *command = sys.argv[1:]
    started = time.monotonic()
    pid = os.posix_spawnp(command[0], command, os.environ)
    _, status, usage = os.wait4(pid, 0)
    wall = time.monotonic() - started
    with open(report, "w", encoding="ascii") as file:  # noqa: PTH123 - pathlib would be more than all the rest
        # ru_maxrss is in KiB on Linux (getrusage(2)). With wait4, it is that of the largest of all descendants.
        print(
            os.waitstatus_to_exitcode(status), wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss << 10, file=file
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
