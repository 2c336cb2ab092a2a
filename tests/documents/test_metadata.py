"""`backup_information.json`."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gitlab_backup.errors import MetadataError
from gitlab_backup.metadata import MAX_SIZE, Metadata
from gitlab_backup.strategies import metadata, metadata_documents
from tests.documents.mutation import mutated_bytes, mutated_json

if TYPE_CHECKING:
    from pathlib import Path

SAMPLE = Metadata(
    backup_id="1714053314_2024_04_25_17.0.0-pre",
    created_at=datetime(2024, 4, 25, 13, 55, 14, tzinfo=UTC),
    gitlab_version="17.0.0-pre",
)
GOLDEN = b"""{
  "metadata_version": 2,
  "backup_id": "1714053314_2024_04_25_17.0.0-pre",
  "created_at": "2024-04-25T13:55:14Z",
  "gitlab_version": "17.0.0-pre"
}"""
"""The example of GitLab's documentation, as `JSON.pretty_generate` lays it out: without a newline at its end."""


def changed(**fields: Any) -> bytes:
    return json.dumps({**json.loads(GOLDEN), **fields}).encode()


def problems(document: bytes | str) -> tuple[str, ...]:
    with pytest.raises(MetadataError) as caught:
        Metadata.from_json(document, source="the/file")
    assert "the/file" in caught.value.message
    assert caught.value.hint
    assert all(problem in str(caught.value) for problem in caught.value.problems)
    return caught.value.problems


def test_the_example_of_gitlabs_documentation_is_read_and_written() -> None:
    """Both directions agree with the documented example, to the byte."""
    assert Metadata.from_json(GOLDEN, source="golden") == SAMPLE
    assert SAMPLE.to_json() == GOLDEN


@given(metadata())
def test_what_is_written_is_read_back(value: Metadata) -> None:
    """Metadata survive being a document, with the order of their extra fields."""
    again = Metadata.from_json(value.to_json(), source="x")

    assert value == again
    assert list(value.extra.items()) == list(again.extra.items())


@given(metadata())
def test_the_four_fields_come_first_and_in_order(value: Metadata) -> None:
    """The four fields are in the reference's order; nothing is nested, as the reference would not read it."""
    document = json.loads(value.to_json())

    assert list(document) == ["metadata_version", "backup_id", "created_at", "gitlab_version", *value.extra]
    assert not any(isinstance(each, dict | list) for each in document.values())


@given(metadata_documents())
def test_what_the_reference_writes_is_read_and_means_the_same(text: str) -> None:
    """Any layout is read; the fields say what they said, and writing is stable from then on."""
    value = Metadata.from_json(text, source="x")
    document = json.loads(text)

    assert value.backup_id == document.pop("backup_id")
    assert value.gitlab_version == document.pop("gitlab_version")
    said = datetime.fromisoformat(document.pop("created_at"))
    assert timedelta() <= said - value.created_at < timedelta(seconds=1)
    assert int(document.pop("metadata_version")) == value.metadata_version
    assert document == dict(value.extra)
    assert value.to_json() == Metadata.from_json(value.to_json(), source="x").to_json()


@given(st.data(), metadata().map(Metadata.to_json))
def test_a_damaged_document_is_understood_or_refused(data: st.DataObject, valid: bytes) -> None:
    """Whatever is done to a document, it gives metadata that can be written again, or a MetadataError."""
    document = data.draw(mutated_bytes(valid) | mutated_json(valid))
    try:
        value = Metadata.from_json(document, source="x")
    except MetadataError:
        return
    assert value == Metadata.from_json(value.to_json(), source="x")


@given(st.binary(max_size=50) | st.text(max_size=50))
@example(b"")
@example("null")
@example("\ud800")
@example("2")
def test_anything_else_is_refused(document: bytes | str) -> None:
    """What is not a JSON object with the four fields is a MetadataError."""
    assert problems(document)


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        (GOLDEN[:-1], "not JSON"),
        (b"\xef\xbb\xbf" + GOLDEN, "byte order mark"),
        (GOLDEN.replace(b"pre", b"pr\xff"), "not UTF-8 at byte"),
        (GOLDEN.decode().encode("utf-16"), "not UTF-8"),
        (b" " * MAX_SIZE + GOLDEN, "longer than 1048576 bytes"),
        (b"[" * 500_000, "nested deeper"),
        (b'{"a":' * 150_000, "nested deeper"),
        (b'{"a": ' + b"9" * 5000 + b"}", "too many digits"),
        (GOLDEN.replace(b"{", b'{"backup_id": "x",'), "backup_id: appears more than once"),
        (GOLDEN.replace(b"{", b'{"a": NaN,'), "a: not a finite number"),
        (GOLDEN.replace(b"{", b'{"a": 1e999,'), "a: not a finite number"),
        (GOLDEN.replace(b"{", b'{"a": "\\ud800",'), "a: not valid Unicode"),
        (changed(a=[1]), "a: must not be an array"),
        (changed(a={}), "a: must not be an object"),
        (changed(metadata_version=3), "metadata_version: version 3 is newer than 2"),
        (changed(metadata_version=1), "metadata_version: version 1 is not known"),
        (changed(metadata_version="1.5"), "metadata_version: must be the integer 2, not a string"),
        (changed(metadata_version=2.5), "metadata_version: must be the integer 2, not a number"),
        (changed(metadata_version=True), "metadata_version: must be the integer 2, not a boolean"),
        (changed(metadata_version=None), "metadata_version: must be the integer 2, not null"),
        (changed(backup_id=17), "backup_id: must be a string, not a number"),
        (changed(backup_id="../x"), "backup_id: '../x' has a character"),
        (changed(backup_id=".."), "backup_id: '..' begins with a dot"),
        (changed(gitlab_version=17.1), "gitlab_version: must be a string, not a number"),
        (changed(gitlab_version=""), "gitlab_version: is empty"),
        (changed(created_at="2024-04-25T13:55:14"), "created_at: '2024-04-25T13:55:14' is not a time with its offset"),
        (changed(created_at="yesterday"), "created_at: 'yesterday' is not a time"),
        (changed(created_at=1714053314), "created_at: must be a string, not a number"),
        (changed(created_at="0001-01-01T00:00:00+14:00"), "is not a time"),
        (b"[]", "must be an object, not an array"),
    ],
)
def test_bad_documents_say_what_is_wrong(document: bytes, expected: str) -> None:
    """Each defect is named, with its key, and is the only problem."""
    (problem,) = problems(document)

    assert expected in problem


def test_all_problems_are_told_at_once() -> None:
    """Every field that is wrong has its own line in one error."""
    document = '{"metadata_version": "x", "backup_id": null, "created_at": "now", "a": [], "a": NaN}'

    assert [each.partition(":")[0] for each in problems(document)] == [
        "a",
        "a",
        "metadata_version",
        "backup_id",
        "created_at",
        "gitlab_version",
    ]


def test_a_newer_version_has_its_own_hint() -> None:
    """A document of the future is not damaged: a newer tool can read it."""
    with pytest.raises(MetadataError) as caught:
        Metadata.from_json(changed(metadata_version=3), source="x")
    assert "newer" in (caught.value.hint or "")


@pytest.mark.parametrize("version", [2, "2", " 2 ", 2.0])
def test_versions_that_the_reference_reads_as_2(version: object) -> None:
    """The reference takes the integer at the start of whatever this is as text: so do we, where nothing is lost."""
    assert Metadata.from_json(changed(metadata_version=version), source="x") == SAMPLE


@pytest.mark.parametrize(
    "text",
    ["2024-04-25T15:55:14+02:00", "2024-04-25 13:55:14.999+00:00", "20240425T135514Z", "2024-04-25T13:55:14-0000"],
)
def test_times_of_any_offset_are_read(text: str) -> None:
    """A time is brought to UTC, and to the second below."""
    assert Metadata.from_json(changed(created_at=text), source="x") == SAMPLE


def test_extra_fields_are_kept_after_the_four() -> None:
    """What another tool added is not lost, and does not disturb."""
    value = Metadata.from_json(b'{"z": null, "a": "\xc3\xa4", ' + GOLDEN[1:], source="x")

    assert dict(value.extra) == {"z": None, "a": "ä"}
    assert value.to_json() == GOLDEN[:-2] + b',\n  "z": null,\n  "a": "\xc3\xa4"\n}'


@pytest.mark.parametrize(
    "fields",
    [
        {"backup_id": ""},
        {"backup_id": "a/b"},
        {"gitlab_version": ""},
        {"gitlab_version": "\ud800"},
        {"created_at": datetime(2024, 4, 25)},  # noqa: DTZ001 - the defect
        {"metadata_version": 3},
        {"extra": {"backup_id": "x"}},
        {"extra": {"a": float("nan")}},
        {"extra": {"a": []}},
        {"extra": {"\ud800": 1}},
    ],
)
def test_no_metadata_are_made_that_could_not_be_read(fields: dict[str, Any]) -> None:
    """A value that its own document could not hold is refused where it is made."""
    valid = {"backup_id": "x", "gitlab_version": "17.0.0", "created_at": datetime(2024, 4, 25, tzinfo=UTC)}
    with pytest.raises(ValueError, match=r"."):
        Metadata(**{**valid, **fields})


def test_times_are_kept_in_utc() -> None:
    """A time of another zone is the same metadata as that in UTC."""
    at = datetime(2024, 4, 25, 15, 55, 14, 7, tzinfo=timezone(timedelta(hours=2)))

    assert Metadata(backup_id=SAMPLE.backup_id, created_at=at, gitlab_version="17.0.0-pre") == SAMPLE
    assert hash(SAMPLE) == hash(Metadata.from_json(GOLDEN, source="x"))


def test_the_file_of_a_backup_is_read(tmp_path: Path) -> None:
    """`read` takes the directory of a backup."""
    (tmp_path / Metadata.FILE_NAME).write_bytes(GOLDEN)

    assert Metadata.read(tmp_path) == SAMPLE


@pytest.mark.parametrize("kind", ["missing", "directory", "pipe", "dangling", "huge"])
def test_a_file_that_cannot_be_read_is_an_error(tmp_path: Path, kind: str) -> None:
    """What is not a readable file is a MetadataError that names it; a named pipe does not make us wait."""
    path = tmp_path / Metadata.FILE_NAME
    match kind:
        case "directory":
            path.mkdir()
        case "pipe":
            os.mkfifo(path)
        case "dangling":
            path.symlink_to("nowhere")
        case "huge":
            path.touch()
            os.truncate(path, 1 << 40)
    with pytest.raises(MetadataError, match=str(path)):
        Metadata.read(tmp_path)
