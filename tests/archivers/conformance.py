"""What every archiver must do. Subclass `ArchiverConformance` with a fixture `bench` to test one of your own.

As a program (`python -m tests.archivers.conformance PICKLE`) it takes some steps of a restore, and is killed then.
"""

from __future__ import annotations

import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
from abc import ABC, abstractmethod
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Final

import pytest
from attrs import define, field

from gitlab_backup.archivers.base import Archiver, BackupJob, RestoreOptions, RestorePlan, VerifyJob
from gitlab_backup.checksums import Checksums
from gitlab_backup.components import COMPONENTS, Component
from gitlab_backup.errors import CancelledError, GitLabBackupError
from gitlab_backup.operations.contents import Contents, is_of
from gitlab_backup.operations.journal import restore_job
from gitlab_backup.streams.cancel import Cancellation
from gitlab_backup.streams.codec import codec_named
from tests.support.compare import tree

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from gitlab_backup.archivers.base import JSON, RestoreJob
    from gitlab_backup.instance import Instance

BACKUP_ID: Final = "1714053314_2024_04_25_17.0.0"


def component(component_id: str) -> Component:
    """Return the component of that id."""
    return next(each for each in COMPONENTS if each.id == component_id)


class Bench(ABC):
    """Something for an archiver to work on, and how to look at it."""

    archiver: ClassVar[type[Archiver]]
    component: Component
    instance: Instance
    codec: str = "gzip"
    keeps_old: bool = True
    """Whether `keep_old` is heeded."""

    @abstractmethod
    def state(self) -> Mapping[str, object]:
        """Return all of the component that GitLab sees, by names for messages."""

    @abstractmethod
    def beside(self) -> Sequence[str]:
        """Return what is there besides: what steps of a restore leave, and must clean up."""

    @abstractmethod
    def change(self) -> None:
        """Make the component differ from what was backed up: something more, something less, something else."""

    @abstractmethod
    def empty(self) -> None:
        """Take away what a backup is of, as after the loss of a disk, as far as the archiver can restore that."""


@define
class Made:
    """A backup of one component, and what was told while it was made."""

    root: Path
    details: dict[str, JSON] = field(factory=dict)
    digests: dict[str, str] = field(factory=dict)
    read: int = 0
    written: int = 0
    warnings: list[str] = field(factory=list)
    cancel: Cancellation = field(factory=Cancellation)
    cancel_at_once: bool = False

    def progress(self, read: int, written: int) -> None:
        self.read += read
        self.written += written
        if self.cancel_at_once:
            self.cancel.request()

    def back_up(self, bench: Bench, *, keep_going: bool = False) -> None:
        """Make it."""
        self.root.mkdir(mode=0o700)
        archiver = bench.archiver()
        with ThreadPoolExecutor(1) as pool, ExitStack() as resources:
            job = BackupJob(
                instance=bench.instance,
                component=bench.component,
                root=self.root,
                backup_id=self.root.name,
                codec=codec_named(bench.codec),
                level=None,
                jobs=2,
                keep_going=keep_going,
                pool=pool,
                cancel=self.cancel,
                progress=self.progress,
                written=self.digests.__setitem__,
                warn=self.warnings.append,
            )
            archiver.prepare(job, resources)
            self.details = archiver.back_up(job)

    def verify(self, bench: Bench, root: Path | None = None, *, digests: bool = True) -> set[str]:
        """Return the files that are found to be damaged, by archiver and digests, or by the archiver alone."""
        contents = Contents.of(root or self.root)
        job = VerifyJob(
            component=bench.component,
            root=contents.path,
            backup_id=self.root.name,
            details=plain(self.details),
            jobs=2,
            cancel=Cancellation(),
            open_file=contents.open,
            open_stream=contents.open_stream,
            damaged=contents.damaged,
            names=contents.listed,
        )
        try:
            bench.archiver().verify(job)
        except (GitLabBackupError, OSError) as error:
            contents.damaged(bench.component.destination, str(error))
        if digests:
            for name in contents.names:
                contents.digest(name, Cancellation())
            contents.compare(Checksums(self.digests), lambda _name: True)
        return {damage.file for damage in contents.damages}

    def restore(self, bench: Bench, *, keep_old: bool = False) -> Restore:
        return Restore(bench, self, RestoreOptions(keep_old=keep_old))


@define
class Restore:
    """A restore, step by step. `again` is for the steps that another process may take: with nothing but the facts."""

    bench: Bench
    made: Made
    options: RestoreOptions
    archiver: Archiver = field(init=False)
    job: RestoreJob = field(init=False)
    plan: RestorePlan = field(init=False)
    facts: dict[str, JSON] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.archiver = self.bench.archiver()
        self.job = restore_job(
            self.bench.instance,
            self.bench.component,
            Contents.of(self.made.root),
            self.options,
            details=plain(self.made.details),
            jobs=2,
        )
        self.plan = self.archiver.plan_restore(self.job)
        self.facts = plain(self.plan.facts)

    def do(self, *steps: str) -> None:
        for step in steps:
            getattr(self.archiver, step)(self.job, self.facts)

    def again(self, step: str) -> None:
        getattr(self.bench.archiver(), step)(self._later(), self.facts)

    def committed(self) -> str | None:
        return self.bench.archiver().committed(self._later(), self.facts)

    def killed_after(self, *steps: str) -> None:
        """Take steps in another process, which is killed then."""
        work = (self.bench.archiver, self.bench.instance, self.bench.component, self.made.root, self.made.details)
        pickled = self.made.root.with_name(f"{self.made.root.name}.pickle")
        pickled.write_bytes(pickle.dumps((*work, self.options, self.facts, steps)))
        done = subprocess.run(
            [sys.executable, "-m", "tests.archivers.conformance", pickled],
            cwd=Path(__file__).parent.parent.parent,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            capture_output=True,
            text=True,
            check=False,
        )
        assert -signal.SIGKILL == done.returncode, done.stderr

    def _later(self) -> RestoreJob:
        """Return the job as a later process has it: see `operations.journal`."""
        options = RestoreOptions(keep_old=self.options.keep_old)
        return restore_job(self.bench.instance, self.bench.component, Contents.of(self.made.root), options)


def plain(value: dict[str, JSON]) -> dict[str, JSON]:
    """Return what JSON makes of it, which must be the same."""
    document: dict[str, JSON] = json.loads(json.dumps(value, allow_nan=False))
    assert document == value
    return document


def differences(before: Mapping[str, object], after: Mapping[str, object]) -> list[str]:
    """Return the names of what differs."""
    return [name for name in sorted({*before, *after}) if before.get(name) != after.get(name)]


@contextmanager
def no_process_left() -> Iterator[None]:
    """Look that the block leaves no child of this process."""
    before = _children()
    yield
    assert set() == _children() - before


def _children() -> set[str]:
    return {child for task in Path("/proc/self/task").glob("*/children") for child in task.read_text().split()}


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x10
    path.write_bytes(content)


def _cut(path: Path) -> None:
    # In the middle of a line, so that what is left of a list is none.
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3].rstrip(b"\n"))


def _extend(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more than there was")


DAMAGES: Final[dict[str, Callable[[Path], None]]] = {
    "flip": _flip,
    "cut": _cut,
    "extend": _extend,
    "delete": Path.unlink,
}


class ArchiverConformance:
    """The promises of the protocol `Archiver`."""

    @pytest.fixture
    def made(self, bench: Bench, tmp_path: Path) -> Made:
        """A backup of the bench."""
        made = Made(tmp_path / BACKUP_ID)
        made.back_up(bench)
        return made

    # Backup

    def test_back_up(self, bench: Bench, tmp_path: Path) -> None:
        """Every file is below the destination, private, and declared with its digest; nothing else is changed."""
        assert None is bench.archiver().left_out(bench.component, bench.instance)
        before = bench.state()
        made = Made(tmp_path / BACKUP_ID)
        with no_process_left():
            made.back_up(bench)
        assert [] == made.warnings
        contents = Contents.of(made.root)
        for name in contents.names:
            contents.digest(name, Cancellation())
        assert made.digests != {}
        assert contents.digests == made.digests
        assert [] == [name for name in made.digests if not is_of(name, bench.component)]
        modes = {oct((made.root / name).stat().st_mode & 0o777) for name in made.digests}
        assert {"0o600"} == modes
        directories = [path for path in made.root.rglob("*") if path.is_dir()]
        assert [] == [path for path in directories if path.stat().st_mode & 0o077]
        assert [] == differences(before, bench.state())
        assert [] == list(bench.beside())

    def test_what_is_told(self, bench: Bench, made: Made) -> None:
        """What was written is counted to the byte; details are JSON, and those of a dictionary."""
        assert sum((made.root / name).stat().st_size for name in made.digests) == made.written
        assert made.details == plain(made.details)
        assert bench.archiver.name == bench.archiver().name

    @pytest.mark.parametrize("at_once", [True, False], ids=["before", "meanwhile"])
    def test_cancelled_backup(self, bench: Bench, tmp_path: Path, at_once: bool) -> None:  # noqa: FBT001
        """A request, before it or with the first byte, ends it as cancelled, and every program that it runs."""
        made = Made(tmp_path / BACKUP_ID, cancel_at_once=not at_once)
        if at_once:
            made.cancel.request()
        with no_process_left(), pytest.raises(CancelledError):
            made.back_up(bench)

    # Verification

    def test_undamaged(self, bench: Bench, made: Made) -> None:
        """Nothing is reported of a backup as it was made, and nothing in it is changed."""
        before = tree(made.root)
        with no_process_left():
            assert set() == made.verify(bench)
        assert before == tree(made.root)

    @pytest.mark.parametrize("damage", DAMAGES)
    def test_damage(self, bench: Bench, made: Made, tmp_path: Path, damage: str) -> None:
        """Each file that is damaged is reported. The archiver, on whatever bytes, reports or raises one of our errors.

        One that is cut short or not there is noticed by the archiver alone: reference backups have no digests.
        """
        unnoticed = []
        for name in sorted(made.digests):
            copy = tmp_path / "copy" / BACKUP_ID
            shutil.copytree(made.root, copy)
            if (copy / name).stat().st_size:
                DAMAGES[damage](copy / name)
                assert name in made.verify(bench, copy)
                if damage in {"cut", "delete"} and not self.needs_digest(name):
                    unnoticed += [] if made.verify(bench, copy, digests=False) else [name]
            shutil.rmtree(copy)
        assert [] == unnoticed

    def needs_digest(self, name: str) -> bool:  # noqa: ARG002 - one of a subclass looks at it
        """Return whether only a digest tells that this file is cut or missing: it need not be there, or is padded."""
        return False

    # Restore

    def test_plan(self, bench: Bench, made: Made) -> None:
        """It changes nothing, says what is replaced, and its facts are JSON."""
        bench.change()
        before, backup = bench.state(), tree(made.root)
        with no_process_left():
            restore = made.restore(bench)
        assert [] == differences(before, bench.state())
        assert [] == list(bench.beside())
        assert backup == tree(made.root)
        assert restore.plan.replaces
        assert restore.facts == restore.plan.facts
        assert [True] * len(restore.plan.space) == [path.is_dir() and size >= 0 for path, size in restore.plan.space]
        assert None is restore.committed()

    def test_round_trip(self, bench: Bench, made: Made, tmp_path: Path) -> None:
        """Staging shows nothing; after the swap all is as it was; finishing, also twice, leaves nothing besides."""
        original = bench.state()
        bench.change()
        changed, backup = bench.state(), tree(made.root)
        assert [] != differences(original, changed)
        restore = made.restore(bench)
        with no_process_left():
            restore.do("stage")
            assert [] == differences(changed, bench.state())
            assert None is restore.committed()
            restore.do("swap")
        assert [] == differences(original, bench.state())
        assert (None is restore.committed()) == restore.plan.reversible
        restore.do("finish")
        restore.again("finish")
        assert [] == differences(original, bench.state())
        assert [] == list(bench.beside())
        assert backup == tree(made.root)
        # And what it is now can be backed up like what it was.
        Made(tmp_path / "again").back_up(bench)

    def test_into_nothing(self, bench: Bench, made: Made) -> None:
        """Where all is lost, all comes back; and an undo leaves nothing, as it was."""
        original = bench.state()
        bench.empty()
        nothing = bench.state()
        restore = made.restore(bench)
        restore.do("stage")
        if restore.plan.reversible:
            restore.do("swap")
        restore.again("undo")
        assert [] == differences(nothing, bench.state())
        assert [] == list(bench.beside())
        made.restore(bench).do("stage", "swap", "finish")
        assert [] == differences(original, bench.state())
        assert [] == list(bench.beside())

    @pytest.mark.parametrize("steps", [(), ("stage",), ("stage", "swap")], ids=lambda steps: "-".join(("plan", *steps)))
    def test_undo(self, bench: Bench, made: Made, steps: tuple[str, ...]) -> None:
        """After any step all is as before it, also when undone again; and a restore succeeds then."""
        original = bench.state()
        bench.change()
        changed = bench.state()
        restore = made.restore(bench)
        if restore.plan.reversible:
            restore.do(*steps)
        else:
            restore.do(*steps[:1])
        restore.do("undo")
        assert [] == differences(changed, bench.state())
        assert [] == list(bench.beside())
        restore.again("undo")
        assert [] == differences(changed, bench.state())
        made.restore(bench).do("stage", "swap", "finish")
        assert [] == differences(original, bench.state())

    @pytest.mark.parametrize("steps", [("stage",), ("stage", "swap")], ids="-".join)
    def test_killed(self, bench: Bench, made: Made, steps: tuple[str, ...]) -> None:
        """Facts suffice for another process to go back, or, where that is not possible, to say so and go to the end."""
        original = bench.state()
        bench.change()
        changed = bench.state()
        restore = made.restore(bench)
        restore.killed_after(*steps)
        final = not restore.plan.reversible and "swap" in steps
        assert final == (restore.committed() is not None)
        for _ in range(2):
            restore.again("finish" if final else "undo")
        assert [] == differences(original if final else changed, bench.state())
        assert [] == list(bench.beside())

    @pytest.mark.parametrize("at_once", [True, False], ids=["before", "meanwhile"])
    def test_cancelled_restore(self, bench: Bench, made: Made, at_once: bool) -> None:  # noqa: FBT001
        """A request while it is staged ends that as cancelled; it can be undone."""
        bench.change()
        changed = bench.state()
        restore = made.restore(bench)
        cancel = restore.job.cancel = Cancellation()
        restore.job.progress = lambda _read, _written: cancel.request()
        if at_once:
            cancel.request()
        with no_process_left():
            try:
                restore.do("stage")
            except CancelledError:
                pass
            else:
                assert not cancel.requested
        assert [] == differences(changed, bench.state())
        restore.again("undo")
        assert [] == differences(changed, bench.state())
        assert [] == list(bench.beside())

    def test_keep_old(self, bench: Bench, made: Made) -> None:
        """What was replaced stays, if that is wished for and can be."""
        original = bench.state()
        bench.change()
        restore = made.restore(bench, keep_old=True)
        restore.do("stage", "swap", "finish")
        restore.again("finish")
        assert [] == differences(original, bench.state())
        assert bench.keeps_old == bool(bench.beside())


class WarningConformance(ArchiverConformance):
    """What archivers promise besides that can leave something out."""

    def spoil(self, bench: Bench) -> None:
        """Make something that can only be left out, or not be read as it was."""
        raise NotImplementedError

    def test_warnings(self, bench: Bench, tmp_path: Path) -> None:
        """What is left out is told, and what is there is a whole backup."""
        self.spoil(bench)
        made = Made(tmp_path / BACKUP_ID)
        made.back_up(bench, keep_going=True)
        assert [] != made.warnings
        assert set() == made.verify(bench)


def _main(pickled: str) -> None:
    # Written by the test that starts this.
    archiver, instance, of, root, details, options, facts, steps = pickle.loads(Path(pickled).read_bytes())  # noqa: S301
    job = restore_job(instance, of, Contents.of(root), options, details=details, jobs=2)
    worker = archiver()
    for step in steps:
        getattr(worker, step)(job, facts)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    _main(sys.argv[1])
