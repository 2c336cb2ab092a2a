"""The suite for archivers notices what a plug-in author may get wrong: here the example, with one mistake at a time."""

from __future__ import annotations

import subprocess
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from gitlab_backup.errors import CancelledError
from tests.archivers.conformance import BACKUP_ID, ArchiverConformance, Made

from .example.gitlab_backup_gnutar import GnuTarArchiver
from .test_example_conforms import Directory

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from gitlab_backup.archivers.base import JSON, BackupJob, RestoreJob, RestorePlan, VerifyJob

    Check = Callable[[ArchiverConformance, Directory, Made, Path], None]


class WritesElsewhere(GnuTarArchiver):
    def back_up(self, job: BackupJob) -> dict[str, JSON]:
        job.create_file("uploads-index.txt").finish()
        return super().back_up(job)


class DeclaresNothing(GnuTarArchiver):
    def back_up(self, job: BackupJob) -> dict[str, JSON]:
        details = super().back_up(job)
        (job.root / "uploads.tar.index").write_bytes(b"")
        return details


class CountsNothing(GnuTarArchiver):
    def back_up(self, job: BackupJob) -> dict[str, JSON]:
        job.progress = lambda _read, _written: None
        return super().back_up(job)


class HasDetailsThatAreNotJson(GnuTarArchiver):
    def back_up(self, job: BackupJob) -> dict[str, JSON]:
        return super().back_up(job) | {"excludes": job.component.excludes}  # type: ignore[return-value]


class TouchesTheSource(GnuTarArchiver):
    def back_up(self, job: BackupJob) -> dict[str, JSON]:
        (job.instance.directory(job.component).path / "backed-up").touch()
        return super().back_up(job)


class IsNotCancelled(GnuTarArchiver):
    def back_up(self, job: BackupJob) -> dict[str, JSON]:
        try:
            return super().back_up(job)
        except CancelledError:
            return {}


class LeavesAProcess(GnuTarArchiver):
    def back_up(self, job: BackupJob) -> dict[str, JSON]:
        left.append(subprocess.Popen(["sleep", "60"]))
        return super().back_up(job)


class VerifiesNothing(GnuTarArchiver):
    def verify(self, job: VerifyJob) -> None:
        pass


class ReportsTooMuch(GnuTarArchiver):
    def verify(self, job: VerifyJob) -> None:
        job.damaged("uploads.tar.gz", "looks odd")


class FailsOnDamage(GnuTarArchiver):
    def verify(self, job: VerifyJob) -> None:
        super().verify(job)
        raise ValueError("unpack requires a buffer of 4 bytes")


class PlansByDoing(GnuTarArchiver):
    def plan_restore(self, job: RestoreJob) -> RestorePlan:
        plan = super().plan_restore(job)
        super().stage(job, plan.facts)
        return plan


class StagesInPlace(GnuTarArchiver):
    def stage(self, job: RestoreJob, facts: Mapping[str, JSON]) -> None:
        super().stage(job, facts)
        super().swap(job, facts)


class SwapsNothing(GnuTarArchiver):
    def swap(self, job: RestoreJob, facts: Mapping[str, JSON]) -> None:
        pass


class UndoesNothing(GnuTarArchiver):
    def undo(self, job: RestoreJob, facts: Mapping[str, JSON]) -> None:
        pass


class UndoesOnce(GnuTarArchiver):
    def undo(self, job: RestoreJob, facts: Mapping[str, JSON]) -> None:
        if facts["existed"] and not (job.root / "undone").exists():
            (job.root / "undone").touch()
            super().undo(job, facts)
        else:
            raise FileNotFoundError(str(facts["old"]))


class Remembers(GnuTarArchiver):
    """Relies on what it did before, which another process does not know."""

    swapped = False

    def swap(self, job: RestoreJob, facts: Mapping[str, JSON]) -> None:
        super().swap(job, facts)
        self.swapped = True

    def undo(self, job: RestoreJob, facts: Mapping[str, JSON]) -> None:
        if self.swapped:
            super().undo(job, facts)


class NeverFinishes(GnuTarArchiver):
    def finish(self, job: RestoreJob, facts: Mapping[str, JSON]) -> None:
        pass


class KeepsNothing(GnuTarArchiver):
    def finish(self, job: RestoreJob, facts: Mapping[str, JSON]) -> None:
        job.options = type(job.options)()
        super().finish(job, facts)


class CommitsWhatItCanUndo(GnuTarArchiver):
    def committed(self, job: RestoreJob, facts: Mapping[str, JSON]) -> str | None:  # noqa: ARG002
        return "all of it"


class StagesOnRequest(GnuTarArchiver):
    def stage(self, job: RestoreJob, facts: Mapping[str, JSON]) -> None:
        with suppress(CancelledError):
            super().stage(job, facts)


left: list[subprocess.Popen[bytes]] = []


def _back_up(suite: ArchiverConformance, bench: Directory, _made: Made, tmp_path: Path) -> None:
    suite.test_back_up(bench, tmp_path)


def _damage(suite: ArchiverConformance, bench: Directory, made: Made, tmp_path: Path) -> None:
    suite.test_damage(bench, made, tmp_path, "cut")


def _round_trip(suite: ArchiverConformance, bench: Directory, made: Made, tmp_path: Path) -> None:
    suite.test_round_trip(bench, made, tmp_path)


def _undo(suite: ArchiverConformance, bench: Directory, made: Made, _tmp_path: Path) -> None:
    suite.test_undo(bench, made, ("stage", "swap"))


@pytest.mark.parametrize(
    ("archiver", "check"),
    [
        (WritesElsewhere, _back_up),
        (DeclaresNothing, _back_up),
        (TouchesTheSource, _back_up),
        (LeavesAProcess, _back_up),
        (CountsNothing, lambda suite, bench, made, _: suite.test_what_is_told(bench, made)),
        (HasDetailsThatAreNotJson, lambda suite, bench, made, _: suite.test_what_is_told(bench, made)),
        (IsNotCancelled, lambda suite, bench, _made, path: suite.test_cancelled_backup(bench, path, at_once=True)),
        (VerifiesNothing, _damage),
        (FailsOnDamage, _damage),
        (ReportsTooMuch, lambda suite, bench, made, _: suite.test_undamaged(bench, made)),
        (PlansByDoing, lambda suite, bench, made, _: suite.test_plan(bench, made)),
        (StagesInPlace, _round_trip),
        (SwapsNothing, _round_trip),
        (NeverFinishes, _round_trip),
        (CommitsWhatItCanUndo, _round_trip),
        (UndoesNothing, _undo),
        (UndoesOnce, _undo),
        (Remembers, lambda suite, bench, made, _: suite.test_killed(bench, made, ("stage", "swap"))),
        (KeepsNothing, lambda suite, bench, made, _: suite.test_keep_old(bench, made)),
        (StagesOnRequest, lambda suite, bench, made, _: suite.test_cancelled_restore(bench, made, at_once=True)),
    ],
)
def test_mistake(tmp_path: Path, archiver: type[GnuTarArchiver], check: Check) -> None:
    """The example passes the check; with its mistake, it fails."""
    both: tuple[type[GnuTarArchiver], ...] = (GnuTarArchiver, archiver)
    for number, each in enumerate(both):
        place = tmp_path / str(number)
        (place / "shared").mkdir(parents=True)
        (place / "checked").mkdir()
        bench = Directory(place / "shared" / "uploads")
        bench.archiver = each  # type: ignore[misc]
        made = Made(place / BACKUP_ID)
        if check is not _back_up:
            made.back_up(bench)
        if each is GnuTarArchiver:
            check(ArchiverConformance(), bench, made, place / "checked")
            continue
        try:
            with pytest.raises((AssertionError, ValueError, FileNotFoundError, pytest.fail.Exception)):
                check(ArchiverConformance(), bench, made, place / "checked")
        finally:
            while left:
                process = left.pop()
                process.kill()
                process.wait()
