"""`manifest.json`."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from gitlab_backup.errors import ManifestError
from gitlab_backup.events import Status
from gitlab_backup.manifest import BackupStatus, ComponentRecord, Compression, Manifest, Tool
from gitlab_backup.strategies import manifests
from tests.documents.mutation import mutated_bytes, mutated_json

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

RECORD = ComponentRecord(
    id="db",
    name="Databases",
    destination="db",
    archiver="database",
    status=Status.WARNING,
    bytes_read=7,
    bytes_written=3,
    duration_seconds=1.5,
    warnings=("a table was left out",),
    details={"snapshots": {"main": "00000003-0000001B-1"}},
)
SAMPLE = Manifest(
    tool=Tool(name="gitlab-backup", version="0.1.0"),
    backup_id="1714053314_2024_04_25_17.0.0-pre",
    status=BackupStatus.COMPLETE_WITH_WARNINGS,
    started_at=datetime(2024, 4, 25, 13, 55, 14, 123_999, tzinfo=UTC),
    finished_at=datetime(2024, 4, 25, 13, 55, 20, tzinfo=UTC),
    gitlab_version="17.0.0-pre",
    installation="omnibus",
    compression=Compression(codec="gzip", level=None),
    selected=("db",),
    secrets_sha256="0" * 64,
    components=(RECORD,),
)
GOLDEN = b"""{
  "manifest_version": 1,
  "tool": {
    "name": "gitlab-backup",
    "version": "0.1.0"
  },
  "backup_id": "1714053314_2024_04_25_17.0.0-pre",
  "status": "complete_with_warnings",
  "started_at": "2024-04-25T13:55:14.123Z",
  "finished_at": "2024-04-25T13:55:20.000Z",
  "gitlab_version": "17.0.0-pre",
  "installation": "omnibus",
  "compression": {
    "codec": "gzip",
    "level": null
  },
  "selected": [
    "db"
  ],
  "secrets_sha256": "0000000000000000000000000000000000000000000000000000000000000000",
  "components": [
    {
      "id": "db",
      "name": "Databases",
      "destination": "db",
      "archiver": "database",
      "status": "warning",
      "bytes_read": 7,
      "bytes_written": 3,
      "duration_seconds": 1.5,
      "warnings": [
        "a table was left out"
      ],
      "reason": null,
      "details": {
        "snapshots": {
          "main": "00000003-0000001B-1"
        }
      }
    }
  ],
  "warnings": []
}
"""


def changed(change: Callable[[dict[str, Any]], object]) -> bytes:
    document = json.loads(GOLDEN)
    change(document)
    return json.dumps(document).encode()


def problems(document: bytes | str) -> tuple[str, ...]:
    with pytest.raises(ManifestError) as caught:
        Manifest.from_json(document, source="the/file")
    assert "the/file" in caught.value.message
    assert caught.value.hint
    return caught.value.problems


def test_the_format_does_not_change_by_accident() -> None:
    """Version 1 is this, to the byte."""
    assert SAMPLE.to_json() == GOLDEN
    assert Manifest.from_json(GOLDEN, source="golden") == SAMPLE


def test_statuses_are_enums_when_read() -> None:
    """What is read has the types that it says, not only equal values."""
    value = Manifest.from_json(GOLDEN, source="golden")

    assert value.status is BackupStatus.COMPLETE_WITH_WARNINGS
    assert value.components[0].status is Status.WARNING


@given(manifests())
def test_what_is_written_is_read_back(value: Manifest) -> None:
    """Manifests survive being a document, which is the same when it is written again."""
    again = Manifest.from_json(value.to_json(), source="x")

    assert value == again
    assert value.to_json() == again.to_json()


@given(st.data(), manifests().map(Manifest.to_json))
def test_a_damaged_document_is_understood_or_refused(data: st.DataObject, valid: bytes) -> None:
    """Whatever is done to a document, it gives a manifest that can be written again, or a ManifestError."""
    document = data.draw(mutated_bytes(valid) | mutated_json(valid))
    try:
        value = Manifest.from_json(document, source="x")
    except ManifestError:
        return
    assert value == Manifest.from_json(value.to_json(), source="x")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda d: d.update(manifest_version=2), "manifest_version: 2 is newer than 1, the newest that is known"),
        (lambda d: d.update(manifest_version=0), "manifest_version: must be 1"),
        (lambda d: d.update(status="failed"), "status: must be one of complete, complete_with_warnings"),
        (lambda d: d.update(tool=[]), "tool: must be an object, not an array"),
        (lambda d: d.update(selected="db"), "selected: must be an array, not a string"),
        (lambda d: d.update(selected=["db", 1]), "selected[1]: must be a string, not a number"),
        (lambda d: d.update(secrets_sha256="x"), "secrets_sha256: must be a SHA-256"),
        (lambda d: d.update(backup_id="../x"), "backup_id: has a character that a file name must not have"),
        (lambda d: d.update(started_at="2024-04-25T13:55:14"), "started_at: '2024-04-25T13:55:14' is not a time"),
        (lambda d: d.update(surprise=1), "unknown key surprise"),
        (lambda d: d["tool"].update(surprise=1), "tool: unknown key surprise"),
        (lambda d: d["tool"].pop("name"), "tool.name: is missing"),
        (lambda d: d["compression"].update(level=1.5), "compression.level: must be an integer, not a number"),
        (lambda d: d["components"].append(None), "components[1]: must be an object, not null"),
        (lambda d: d["components"][0].update(bytes_read=-1), "components[0].bytes_read: must be a number of bytes"),
        (lambda d: d["components"][0].update(bytes_read="1"), "components[0].bytes_read: must be an integer"),
        (lambda d: d["components"][0].update(bytes_read=True), "components[0].bytes_read: must be an integer"),
        (lambda d: d["components"][0].update(bytes_read=2**63), "components[0].bytes_read: must be a number of bytes"),
        (lambda d: d["components"][0].update(duration_seconds=-0.1), "duration_seconds: must be a number of seconds"),
        (
            lambda d: d["components"][0].update(duration_seconds=10**400),
            "duration_seconds: must be a number of seconds",
        ),
        (lambda d: d["components"][0].update(status="fine"), "components[0].status: must be one of complete, warning"),
        (lambda d: d["components"][0].update(details=[]), "components[0].details: must be an object, not an array"),
        (
            lambda d: d["components"][0]["details"].update(a=float("nan")),
            "components[0].details.a: not a finite number",
        ),
        (lambda d: d["components"][0]["details"].update(a="\ud800"), "components[0].details.a: not valid Unicode"),
    ],
)
def test_bad_documents_say_what_is_wrong_and_where(change: Callable[[dict[str, Any]], object], expected: str) -> None:
    """Each defect is named with its place."""
    assert any(expected in problem for problem in problems(changed(change)))


def test_all_problems_are_told_at_once() -> None:
    """Problems of all places come in one error."""

    def change(document: dict[str, Any]) -> None:
        del document["tool"]
        document["status"] = 1
        document["components"][0].update(bytes_read=-1, bytes_written=-1, status=None)

    assert [each.partition(":")[0] for each in problems(changed(change))] == [
        "tool",
        "status",
        "components[0].status",
        "components[0].bytes_read",
        "components[0].bytes_written",
    ]


def test_many_problems_are_counted() -> None:
    """A document that is wrong all over gets a message of bounded length."""
    found = problems(changed(lambda document: document.update(warnings=[1] * 1000)))

    assert len(found) == 21
    assert found[-1] == "and 980 more"


@pytest.mark.parametrize("document", [b"", b"[]", b"{", b"\xff", b"[" * 200_000, "{}", "null"])
def test_what_is_no_manifest_is_refused(document: bytes | str) -> None:
    """What is not an object with the fields of a manifest is a ManifestError."""
    assert problems(document)


def test_names_that_are_not_unicode_are_written_out() -> None:
    """A warning about a file whose name is not UTF-8 makes a manifest that every JSON reader can read."""
    record = evolve(RECORD, warnings=("lost \udcff",), reason="\udc80", details={"\udc81": ["\udc82"]})

    assert record.warnings == (r"lost \udcff",)
    assert record.reason == r"\udc80"
    assert record.details == {r"\udc81": [r"\udc82"]}
    assert evolve(SAMPLE, components=(record,)).to_json().isascii()


@pytest.mark.parametrize(
    "fields",
    [
        {"bytes_read": -1},
        {"bytes_written": 2**63},
        {"duration_seconds": float("nan")},
        {"duration_seconds": -1.0},
        {"details": {"a": float("inf")}},
    ],
)
def test_no_record_is_made_that_could_not_be_read(fields: dict[str, Any]) -> None:
    """A value that a manifest could not hold is refused where it is made."""
    with pytest.raises(ValueError, match=r"."):
        evolve(RECORD, **fields)


def test_a_selection_makes_a_backup_partial() -> None:
    """A backup is partial if a known component was not selected, and not if one was selected but left out."""
    uploads = evolve(RECORD, id="uploads", status=Status.SKIPPED, reason="in object storage")
    both = evolve(SAMPLE, components=(RECORD, uploads))

    assert both.partial
    assert not evolve(both, selected=("db", "uploads")).partial
    assert both.component("uploads") is uploads
    assert both.component("pages") is None


def test_the_file_of_a_backup_is_read(tmp_path: Path) -> None:
    """`read` takes the directory of a backup, and knows those that have no manifest."""
    assert Manifest.read(tmp_path) is None
    (tmp_path / Manifest.FILE_NAME).write_bytes(GOLDEN)

    assert Manifest.read(tmp_path) == SAMPLE


def test_a_file_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    """A manifest that is there but is not a file is damage, not a backup without one."""
    (tmp_path / Manifest.FILE_NAME).mkdir()

    with pytest.raises(ManifestError, match=str(tmp_path)):
        Manifest.read(tmp_path)


def test_cattrs_is_loaded_only_where_a_manifest_is_read() -> None:
    """The library starts fast: writing a manifest, or importing it, does not need cattrs."""
    code = "import sys, gitlab_backup.manifest; sys.exit('cattrs' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
