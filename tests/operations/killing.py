"""Restores in a process of their own, which dies at a chosen moment."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from gitlab_backup import Backup
    from tests.support.installation import ThrowawayInstallation

_SCRIPT: Final = """
import os, signal, sys
from pathlib import Path
from gitlab_backup import Backup, Instance
root, backup_id, last, *only = sys.argv[1:]
count, last, armed = 0, int(last), False
watched = {"os.rename", "os.mkdir", "os.rmdir", "os.remove", "os.link", "subprocess.Popen", "socket.connect"}
def hook(event, arguments):
    global count
    if armed and event in watched:
        count += 1
        if count == last:
            os.kill(os.getpid(), signal.SIGKILL)
def confirm(proposal):
    global armed
    armed = True
    return True
sys.addaudithook(hook)
instance = Instance.load(gitlab_path=Path(root))
Backup.open(instance.backup_path, backup_id).restore(instance, only=only, jobs=1, confirm=confirm)
print(count)
"""

NEVER: Final = -1


def restore_killed(
    installation: ThrowawayInstallation, backup: Backup, step: int, *, only: tuple[str, ...] = ()
) -> int | None:
    """Restore, killed by itself with SIGKILL before a step: whatever renames, makes, removes, connects or starts.

    Return the number of steps where it came to its end before that one; None where it was killed.
    """
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT, str(installation.root), backup.id, str(step), *only],
        env={**installation.environment(), "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == -signal.SIGKILL:
        return None
    assert done.returncode == 0, done.stderr
    return int(done.stdout)
