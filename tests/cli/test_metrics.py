"""The figures for Prometheus, read as Prometheus reads them."""

from __future__ import annotations

import stat
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gitlab_backup_cli import metrics
from gitlab_backup_cli.metrics import Figures, Sample
from prometheus_client.parser import text_string_to_metric_families

from gitlab_backup import BackupStore
from gitlab_backup.components import COMPONENTS
from gitlab_backup.events import ComponentFinished, ComponentWarned, OperationStarted, Status

if TYPE_CHECKING:
    from tests.support.installation import ThrowawayInstallation

    from .program import Program


def read(file: Path) -> dict[tuple[str, ...], float]:
    """Return the values of a file, by name without prefix and the values of the labels."""
    values: dict[tuple[str, ...], float] = {}
    for family in text_string_to_metric_families(file.read_text()):
        assert (family.type, family.documentation != "") == ("gauge", True)
        for sample in family.samples:
            key = (sample.name.removeprefix("gitlab_backup_"), *sample.labels.values())
            assert key not in values
            values[key] = sample.value
    return values


def run(file: Path, operation: str, status: int, *events: Any) -> dict[tuple[str, ...], float]:
    """Write the figures of a run with these events, and return what the file says."""
    figures = Figures(operation)
    figures(OperationStarted(operation, "x", Path("/backups/x"), ()))
    for event in events:
        figures(event)
    metrics.write(file, operation, list(figures.samples(status, 1.5)))
    return read(file)


def test_of_a_backup_and_a_failure(program: Program, tmp_path: Path) -> None:
    """A run says how it went, what it moved and what backups there are; a failed one keeps the time of the success."""
    file = tmp_path / "gitlab.prom"
    before = time.time()
    document = program("backup", "all", "--only", "lfs,uploads", "--json", "--metrics-file", file).document
    values = read(file)
    assert 0o644 == stat.S_IMODE(file.stat().st_mode)
    assert before <= values["last_success_timestamp_seconds", "backup"] <= time.time()
    for each in document["components"]:
        if each["status"] != "skipped":
            assert each["bytes_read"] == values["component_read_bytes", "backup", each["id"]]
            assert each["bytes_written"] == values["component_written_bytes", "backup", each["id"]]
            assert len(each["warnings"]) == values["component_warnings", "backup", each["id"]]
    assert {"lfs", "uploads"} == {key[2] for key in values if key[0] == "component_read_bytes"}
    assert 1 == values["backups", document["status"]]
    assert 0 < values["backups_size_bytes",]
    # A backup of two components is none to rely on.
    assert ("newest_backup_timestamp_seconds",) not in values
    failed = program("backup", "all", "--only", "nonsense", "--metrics-file", file)
    after = read(file)
    assert (2, 2) == (failed.status, after["last_run_exit_status", "backup"])
    assert values["last_success_timestamp_seconds", "backup"] == after["last_success_timestamp_seconds", "backup"]
    assert values["last_run_timestamp_seconds", "backup"] < after["last_run_timestamp_seconds", "backup"]
    assert 1 == after["backups", document["status"]]


def test_nothing_of_a_dry_run(program: Program, tmp_path: Path) -> None:
    """A dry run is no run."""
    file = tmp_path / "gitlab.prom"
    assert 0 == program("backup", "all", "--dry-run", "--metrics-file", file).status
    assert not file.exists()


def test_a_file_that_cannot_be_written(program: Program, installation: ThrowawayInstallation, tmp_path: Path) -> None:
    """The backup counts, whatever becomes of its figures: a warning, and status 3."""
    result = program("backup", "all", "--only", "lfs", "--quiet", "--metrics-file", tmp_path / "missing" / "x.prom")
    assert 3 == result.status
    assert result.err.startswith("warning: the figures of this run are not told: ")
    assert 1 == len(BackupStore(installation.backup_path).ids())


def test_operations_share_a_file(tmp_path: Path) -> None:
    """A run replaces what is said of its own operation, and nothing else; a component that is gone is gone."""
    file = tmp_path / "x.prom"
    lfs = ComponentFinished("lfs", Status.COMPLETE, 10, 5, 0.5)
    run(file, "backup", 0, ComponentWarned("lfs", "look"), lfs)
    run(file, "prune", 6)
    values = run(file, "backup", 1, ComponentFinished("db", Status.FAILED, 1, 0, 0.25))
    assert 6 == values["last_run_exit_status", "prune"]
    assert ("last_success_timestamp_seconds", "prune") not in values
    assert ("component_read_bytes", "backup", "lfs") not in values
    assert (1, 0.25) == (
        values["component_failed", "backup", "db"],
        values["component_duration_seconds", "backup", "db"],
    )
    assert 0 == values["last_run_warnings", "backup"]
    assert 1.5 == values["last_run_duration_seconds", "backup"]


def test_a_restore_verifies_first(tmp_path: Path) -> None:
    """What a verification reads before a restore is not what the restore has read."""
    events = (
        OperationStarted("verify", "x", Path("/x"), ("lfs",)),
        ComponentFinished("lfs", Status.COMPLETE, 99, 0, 0.5),
        OperationStarted("restore", "x", Path("/x"), ("lfs",)),
        ComponentFinished("lfs", Status.COMPLETE, 10, 20, 0.5),
    )
    values = run(tmp_path / "x.prom", "restore", 0, *events)
    assert 10 == values["component_read_bytes", "restore", "lfs"]


def test_what_is_there_is_not_believed(tmp_path: Path) -> None:
    """Whatever lies in the place of the file is replaced: what is not ours does not come into it."""
    for number, content in enumerate(
        (b"\xff\xfe", b'gitlab_backup_last_run_warnings{operation="prune"} many\nother 1\n')
    ):
        file = tmp_path / f"{number}.prom"
        file.write_bytes(content)
        assert {"backup"} == {key[1] for key in run(file, "backup", 0)}


def test_ids_need_no_escapes(tmp_path: Path) -> None:
    """Each component of GitLab is a label as it is, and comes back as it was."""
    file = tmp_path / "x.prom"
    samples = [Sample("component_failed", {"operation": "backup", "component": each.id}, 0) for each in COMPONENTS]
    metrics.write(file, "backup", samples)
    metrics.write(file, "prune", [])
    assert {("component_failed", "backup", each.id) for each in COMPONENTS} == set(read(file))


def test_every_figure_is_documented() -> None:
    """The page has each name."""
    page = (Path(__file__).parents[2] / "docs" / "events.md").read_text()
    assert [] == [name for name in metrics._HELP if f"`gitlab_backup_{name}`" not in page]
