"""Backups, restores and prunings in a process of their own, which dies at a chosen moment."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from pathlib import Path

    from gitlab_backup import Backup
    from tests.support.installation import ThrowawayInstallation

_SCRIPT: Final = """
import json, os, signal, sys
from pathlib import Path
from gitlab_backup import Backup, BackupStore, Instance
from gitlab_backup.streams.system import using
order = json.loads(sys.argv[1])
count, last, armed = 0, order["step"], False
watched = {"os.rename", "os.mkdir", "os.rmdir", "os.remove", "os.link", "subprocess.Popen", "socket.connect"}
def step():
    global count
    if armed:
        count += 1
        if count == last:
            os.kill(os.getpid(), signal.SIGKILL)
def hook(event, arguments):
    if event in watched:
        step()
def arm(*_):
    global armed
    armed = True
    return True
def back_up():
    instance = Instance.load(gitlab_path=Path(order["root"]))
    arm()
    Backup.create(instance, only=order["only"], jobs=order["jobs"])
def restore():
    instance = Instance.load(gitlab_path=Path(order["root"]))
    Backup(Path(order["backup"])).restore(instance, only=order["only"], jobs=order["jobs"], confirm=arm)
def prune():
    from gitlab_backup.operations.prune import PruneOptions, prune
    from gitlab_backup.retention import Rules
    arm()
    prune(BackupStore(Path(order["store"])), PruneOptions(rules=Rules(keep_last=order["keep"])))
run = {"backup": back_up, "restore": restore, "prune": prune}[order["operation"]]
sys.addaudithook(hook)
if order["calls"]:
    from tests.faults.broken import CHANGES, READS, Watched
    # Of those that an audit hook hears of, too, each is one step.
    more = {*CHANGES, *READS} - {"rename", "unlink", "rmdir", "mkdir", "link"}
    with using(Watched(lambda call, what: step() if call in more else None)):
        run()
else:
    run()
print(count)
"""

NEVER: Final = -1


def killed(operation: str, environment: dict[str, str], step: int, **order: Any) -> int | None:
    """Run an operation that is killed by itself with SIGKILL before a step.

    Steps are whatever renames, makes, removes, connects or starts; with `calls`, also whatever creates, writes, reads
    or syncs a file. Return the number of steps where it came to its end before that one; None where it was killed.
    """
    full = {"operation": operation, "step": step, "only": [], "jobs": 1, "calls": False, **order}
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT, json.dumps(full)],
        env={**environment, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == -signal.SIGKILL:
        return None
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def backup_killed(
    installation: ThrowawayInstallation, step: int, *, only: tuple[str, ...] = (), jobs: int = 1
) -> int | None:
    """Back up, killed before a step; see `killed`."""
    order = {"root": str(installation.root), "only": only, "jobs": jobs, "calls": True}
    return killed("backup", installation.environment(), step, **order)


def restore_killed(
    installation: ThrowawayInstallation, backup: Backup, step: int, *, only: tuple[str, ...] = (), calls: bool = False
) -> int | None:
    """Restore, killed before a step after the confirmation; see `killed`."""
    order = {"root": str(installation.root), "backup": str(backup.path), "only": only, "calls": calls}
    return killed("restore", installation.environment(), step, **order)


def prune_killed(store: Path, keep: int, step: int) -> int | None:
    """Prune, killed before a step; see `killed`."""
    return killed("prune", dict(os.environ), step, store=str(store), keep=keep, calls=True)
