"""Backs up and restores one directory; as a program, kills a restore at every place where it changes something.

python -m tests.archivers.files_run ARGUMENTS    (JSON; see `kill_everywhere`)
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
import traceback
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from attrs import frozen

from gitlab_backup.archivers.base import JSON, BackupJob, RestoreJob, RestoreOptions, RestorePlan
from gitlab_backup.archivers.files import FilesArchiver
from gitlab_backup.components import COMPONENTS, Component
from gitlab_backup.instance.directories import state
from gitlab_backup.instance.model import Directory, Instance
from gitlab_backup.streams.cancel import Cancellation
from gitlab_backup.streams.codec import codec_for, codec_named
from tests.support.compare import tree, tree_differences

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

UPLOADS = next(component for component in COMPONENTS if component.id == "uploads")
BACKUP_ID = "1714053314_2024_04_25_17.0.0-pre"
STEPS = ("stage", "swap", "finish")
_CHANGES = frozenset(
    ("os.rename", "os.mkdir", "os.rmdir", "os.remove", "os.link", "os.symlink", "os.chmod", "os.chown", "os.utime")
)


@frozen
class OneDirectory(Instance):
    """An installation of which only the directory of uploads matters: it is `root`."""

    reason: str | None = None
    """Why it is left out."""

    def directory(self, component: Component) -> Directory:  # noqa: ARG002 - there is one
        return Directory(path=self.root, left_out=self.reason or state(self.root))


def instance(directory: Path, reason: str | None = None) -> Instance:
    """Return an installation with that directory."""
    return OneDirectory(
        gitlab_version="17.0.0",
        installation="source",
        root=directory,
        rails_env="test",
        backup_path=directory.parent,
        system_user="git",
        databases=(),
        storages=(),
        settings=(),
        search_path="",
        reason=reason,
    )


def back_up(directory: Path, backup: Path, codec: str = "gzip") -> dict[str, JSON]:
    """Back up a directory, and return what the manifest would say."""
    with ThreadPoolExecutor(1) as pool:
        job = BackupJob(
            instance=instance(directory),
            component=UPLOADS,
            root=backup,
            backup_id=BACKUP_ID,
            codec=codec_named(codec),
            level=None,
            jobs=1,
            keep_going=False,
            pool=pool,
            cancel=Cancellation(),
            progress=lambda _read, _written: None,
            written=lambda _name, _sink: None,
            warn=lambda _message: None,
        )
        return FilesArchiver().back_up(job)


class Restore:
    """A restore of one directory, step by step, each with a new archiver: as in another process."""

    def __init__(
        self,
        directory: Path,
        backup: Path,
        details: Mapping[str, JSON] | None = None,
        *,
        keep_old: bool = False,
        reason: str | None = None,
    ) -> None:
        self.warnings: list[str] = []
        self.told = [0, 0]
        self.opened = ExitStack()
        self.job = RestoreJob(
            instance=instance(directory, reason),
            component=UPLOADS,
            root=backup,
            backup_id=BACKUP_ID,
            details=details,
            options=RestoreOptions(keep_old=keep_old),
            jobs=1,
            cancel=Cancellation(),
            open_file=lambda name: (backup / name).open("rb"),
            open_stream=lambda name: self._open(backup / name),
            names=lambda _: [],
            progress=self._tell,
            warn=self.warnings.append,
        )
        self._plan: RestorePlan | None = None

    @property
    def plan(self) -> RestorePlan:
        """The plan, made once."""
        if self._plan is None:
            self._plan = FilesArchiver().plan_restore(self.job)
        return self._plan

    def do(self, *steps: str) -> None:
        """Do these steps, with facts that went through the journal."""
        facts = json.loads(json.dumps(self.plan.facts))
        with self.opened:
            for step in steps:
                getattr(FilesArchiver(), step)(self.job, facts)

    def _tell(self, read: int, written: int) -> None:
        self.told[0] += read
        self.told[1] += written

    def _open(self, path: Path) -> BinaryIO:
        return codec_for(path.name).reader(self.opened.enter_context(path.open("rb")))


def killed_at(number: int | None, act: Callable[[], None]) -> int:
    """Do something in a child that is killed just before its change of that number. Return how many it made, or -1.

    A change is a call that makes, moves or removes something, or sets an attribute.
    """
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        count = 0

        def watch(event: str, arguments: tuple[object, ...]) -> None:
            nonlocal count
            creates = event == "open" and isinstance(arguments[2], int) and arguments[2] & os.O_CREAT
            if event in _CHANGES or creates:
                if count == number:
                    os.kill(os.getpid(), signal.SIGKILL)
                count += 1

        sys.addaudithook(watch)
        status = 1
        try:
            act()
            os.write(write_end, str(count).encode())
            status = 0
        except BaseException:  # noqa: BLE001 - the child ends here
            traceback.print_exc()
        finally:
            os._exit(status)
    os.close(write_end)
    with os.fdopen(read_end, "rb") as answer:
        count = int(answer.read() or b"-1")
    _, status = os.waitpid(child, 0)
    if status not in (0, signal.SIGKILL):
        raise AssertionError(f"a step failed: status {status}")
    return count


def kill_everywhere(
    target: str, backup: str, details: dict[str, JSON] | None, watched: str, stride: int
) -> dict[str, JSON]:
    """Kill a restore at every `stride`-th of its changes, up to the end of the swap, and undo it in another process.

    Every undo is killed once, too, at a moving place, and repeated; then that of a whole restore at many places.
    Returns what was not as before in `watched`.
    """
    directory = Path(target)
    above = Path(watched)
    expected = tree(above)
    problems: list[JSON] = []

    def check(where: str) -> None:
        problems.extend(f"{where}: {line}" for line in tree_differences("tree", expected, tree(above)))

    restore = Restore(directory, Path(backup), details)
    inside = bool(restore.plan.facts["inside"])
    total = killed_at(None, lambda: restore.do("stage", "swap"))
    longest = killed_at(None, lambda: restore.do("undo"))
    check("undone")
    for number in range(0, total, stride):
        killed_at(number, lambda: restore.do("stage", "swap"))
        killed_at(number * 7 % longest, lambda: restore.do("undo"))
        killed_at(None, lambda: restore.do("undo"))
        check(f"killed at {number} of {total}")
    # The renames come first: there, every one counts.
    for number in (*range(min(longest, 24)), *range(24, longest, 4 * stride)):
        killed_at(None, lambda: restore.do("stage", "swap"))
        killed_at(number, lambda: restore.do("undo"))
        killed_at(None, lambda: restore.do("undo"))
        check(f"undoing killed at {number} of {longest}")
    return {"total": total, "inside": inside, "problems": problems[:20]}


def whole(target: str, backup: str, details: dict[str, JSON] | None) -> dict[str, JSON]:
    """Do a whole restore."""
    restore = Restore(Path(target), Path(backup), details)
    restore.do(*STEPS)
    return {"warnings": list(restore.warnings), "inside": restore.plan.facts["inside"]}


def become(uid: int, gid: int) -> None:
    """Go on as another user, who need not be able to read this program."""
    for name in ("gitlab_backup.streams.gzip", "isal.igzip_lib"):
        importlib.import_module(name)
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)


if __name__ == "__main__":
    command = {"kill": kill_everywhere, "whole": whole}[sys.argv[1]]
    arguments = json.loads(sys.argv[2])
    if len(sys.argv) > 3:
        become(*json.loads(sys.argv[3]))
    sys.stdout.write(json.dumps(command(**arguments)))  # type: ignore[operator]
