"""Manifests, lists of refs and headers of bundles: written, read back, and read when they are damaged."""

from __future__ import annotations

import io
import subprocess
import tomllib
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gitlab_backup.archivers.git.bundle import BundleReader, opening
from gitlab_backup.archivers.git.layout import (
    RepositoryManifest,
    Step,
    is_safe,
    latest_path,
    manifest_path,
    parse_ref,
    plain_document,
    read_refs,
)
from gitlab_backup.archivers.git.lines import LONGEST, Lines
from gitlab_backup.errors import CorruptStreamError
from tests.support.repositories import git

from .git_run import commit, init

if TYPE_CHECKING:
    from pathlib import Path


def valid(name: bytes) -> bool:
    try:
        parse_ref(b"0" * 40 + b" " + name)
    except CorruptStreamError:
        return False
    return True


TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)
PATH = TEXT.filter(is_safe)
STEPS = st.builds(
    Step, bundle_path=PATH, ref_path=PATH, custom_hooks_path=PATH, previous_ref_path=st.one_of(st.none(), PATH)
)
MANIFESTS = st.builds(
    RepositoryManifest,
    object_format=st.sampled_from(["sha1", "sha256"]),
    head_reference=st.one_of(st.just(""), TEXT),
    steps=st.lists(STEPS, min_size=1, max_size=4).map(tuple),
    empty=st.booleans(),
    non_existent=st.booleans(),
)
PART = st.binary(min_size=1, max_size=12).filter(lambda part: valid(b"refs/" + part) and b"/" not in part)
NAMES = st.lists(PART, min_size=1, max_size=4).map(lambda parts: b"refs/" + b"/".join(parts)).filter(valid)


@st.composite
def lists_of_refs(draw: st.DrawFn) -> tuple[int, list[tuple[bytes, bytes]]]:
    digits = draw(st.sampled_from([40, 64]))
    oid = st.text("0123456789abcdef", min_size=digits, max_size=digits).map(str.encode)
    refs = [(draw(oid), name) for name in sorted(draw(st.sets(NAMES, max_size=6)))]
    return digits, ([(draw(oid), b"HEAD")] if draw(st.booleans()) else []) + refs


@given(MANIFESTS)
def test_a_manifest_is_read_as_it_was_written(manifest: RepositoryManifest) -> None:
    """Whatever is in it: our reader gives the same manifest, and any TOML reader understands it."""
    written = manifest.to_toml()
    assert manifest == RepositoryManifest.from_toml(written)
    document = tomllib.loads(written.decode())
    assert manifest.object_format == document["object_format"]
    assert [step.bundle_path for step in manifest.steps] == [step["bundle_path"] for step in document["steps"]]


@given(MANIFESTS, st.integers(0, 400), st.sampled_from(b"'\"\\\n=[] a\xff"))
def test_a_plain_manifest_is_read_as_toml(manifest: RepositoryManifest, place: int, byte: int) -> None:
    """What is read without a parser of TOML is what such a parser reads, also where a byte of it was changed."""
    written = manifest.to_toml()
    assert plain_document(written) in (None, tomllib.loads(written.decode()))
    changed = bytearray(written)
    changed[place % len(changed)] = byte
    found = plain_document(bytes(changed))
    assert found is None or found == tomllib.loads(changed.decode())


def test_the_usual_manifest_is_plain() -> None:
    """What the archiver writes of GitLab's own paths needs no parser."""
    first = Step.of("default", "@hashed/6b/86/6b86.git", "1700000000_2023_11_14_17.0.0", 1)
    second = Step.of("default", "@hashed/6b/86/6b86.git", "1700000001_2023_11_14_17.0.0", 2, first)
    for head in ("", "refs/heads/main"):
        written = RepositoryManifest(object_format="sha1", head_reference=head, steps=(first, second)).to_toml()
        assert tomllib.loads(written.decode()) == plain_document(written)


def test_a_manifest_of_two_steps_is_written_as_gitaly_backup_does() -> None:
    """Byte for byte: order of keys, quotes, empty lines, and where the files of an increment lie."""
    path = "@hashed/6b/86/6b86.git"
    first = Step.of("default", path, "1700000000_2024_05_16_17.0.0", 1)
    second = Step.of("default", path, "1700000001_incr", 2, first)
    manifest = RepositoryManifest(object_format="sha1", head_reference="refs/heads/main", steps=(first, second))
    expected = b"""\
empty = false
non_existent = false
object_format = 'sha1'
head_reference = 'refs/heads/main'

[[steps]]
bundle_path = 'default/@hashed/6b/86/6b86.git/1700000000_2024_05_16_17.0.0/001.bundle'
ref_path = 'default/@hashed/6b/86/6b86.git/1700000000_2024_05_16_17.0.0/001.refs'
custom_hooks_path = 'default/@hashed/6b/86/6b86.git/1700000000_2024_05_16_17.0.0/001.custom_hooks.tar'

[[steps]]
bundle_path = 'default/@hashed/6b/86/6b86.git/1700000001_incr/002.bundle'
ref_path = 'default/@hashed/6b/86/6b86.git/1700000001_incr/002.refs'
previous_ref_path = 'default/@hashed/6b/86/6b86.git/1700000000_2024_05_16_17.0.0/001.refs'
custom_hooks_path = 'default/@hashed/6b/86/6b86.git/1700000001_incr/002.custom_hooks.tar'
"""
    assert expected == manifest.to_toml()
    assert f"manifests/default/{path}/x.toml" == manifest_path("default", path, "x")
    assert f"manifests/default/{path}/+latest.toml" == latest_path("default", path)


STEP = "[[steps]]\nbundle_path = 'a'\nref_path = 'b'\ncustom_hooks_path = 'c'\n"


def test_manifests_of_other_versions_are_read() -> None:
    """Before 17.6 there was neither empty nor non_existent; a later one may have keys that are not known yet."""
    old = RepositoryManifest.from_toml(f"object_format = 'sha256'\n{STEP}".encode())
    assert (False, False, "sha256", "") == (old.empty, old.non_existent, old.object_format, old.head_reference)
    new = RepositoryManifest.from_toml(f"object_format = 'sha1'\ncolour = 'red'\n{STEP}size = 3\n".encode())
    assert (Step(bundle_path="a", ref_path="b", custom_hooks_path="c"),) == new.steps
    assert RepositoryManifest.from_toml(f"non_existent = true\nobject_format = ''\n{STEP}".encode()).non_existent


@pytest.mark.parametrize(
    "text",
    [
        "",
        "object_format = 'sha1'",
        f"object_format = 'md5'\n{STEP}",
        STEP,
        f"object_format = 1\n{STEP}",
        f"object_format = 'sha1'\nempty = 'no'\n{STEP}",
        "object_format = 'sha1'\nsteps = [1]",
        "object_format = 'sha1'\nsteps = {}",
        f"object_format = 'sha1'\n{STEP.replace('a', '/a')}",
        f"object_format = 'sha1'\n{STEP.replace(chr(39) + 'a', chr(39) + 'x/../../a')}",
        f"object_format = 'sha1'\n{STEP}previous_ref_path = '..'\n",
        "object_format = ",
        "a = " + "[" * 100_000,
    ],
)
def test_what_is_no_manifest_is_refused(text: str) -> None:
    """Every other document is an error of one kind, whatever is wrong."""
    with pytest.raises(CorruptStreamError):
        RepositoryManifest.from_toml(text.encode())


@given(MANIFESTS, st.data())
def test_a_mutated_manifest_is_read_or_refused(manifest: RepositoryManifest, data: st.DataObject) -> None:
    """No change of bytes makes another exception, or a path that leads out of the backup."""
    text = bytearray(manifest.to_toml())
    for _ in range(data.draw(st.integers(1, 4))):
        text[data.draw(st.integers(0, len(text) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = RepositoryManifest.from_toml(bytes(text))
    except CorruptStreamError:
        return
    assert all(is_safe(step.bundle_path) and is_safe(step.ref_path) for step in found.steps)


@given(lists_of_refs())
def test_refs_and_headers_are_read_as_they_were_written(case: tuple[int, list[tuple[bytes, bytes]]]) -> None:
    """Any list of refs, in a file of its own and in a bundle's header, whatever the names."""
    digits, refs = case
    lines = [oid + b" " + name + b"\n" for oid, name in refs]
    assert refs == list(read_refs(Lines(io.BytesIO(b"".join(lines)))))
    object_format = "sha1" if digits == 40 else "sha256"
    reader = BundleReader(Lines(io.BytesIO(opening(object_format) + b"".join(lines) + b"\n")))
    reader.start()
    assert refs == list(reader.refs())
    assert (object_format, 0) == (reader.object_format, reader.prerequisites)
    assert 0 == reader.pack(lambda: None).size


@given(st.binary(max_size=200))
def test_any_bytes_are_a_bundle_or_refused(data: bytes) -> None:
    """Whatever follows a valid beginning, there is no other exception."""
    for start in (
        b"",
        b"# v2 git bundle\n",
        b"# v3 git bundle\n@",
        b"# v2 git bundle\n" + b"1" * 40 + b" HEAD\n\nPACK",
    ):
        reader = BundleReader(Lines(io.BytesIO(start + data)))
        try:
            reader.start()
            list(reader.refs())
            reader.pack(lambda: None)
        except CorruptStreamError:
            continue


@pytest.mark.parametrize(
    "text",
    [
        b"x\n",
        b"1" * 40 + b" refs/heads/a",
        b"1" * 39 + b" refs/heads/a\n",
        b"1" * 40 + b" refs/heads/../a\n",
        b"1" * 40 + b" heads/a\n",
        b"1" * 40 + b" refs/heads/a.lock\n",
        b"1" * 40 + b" refs/heads/b\n" + b"1" * 40 + b" refs/heads/a\n",
        b"1" * 40 + b" refs/heads/a\n" + b"1" * 40 + b" refs/heads/a\n",
        b"1" * 40 + b" refs/heads/a\n" + b"1" * 40 + b" HEAD\n",
        b"1" * 40 + b" refs/heads/a\n" + b"1" * 64 + b" refs/heads/b\n",
        b"1" * 40 + b" refs/" + b"a" * (LONGEST + (1 << 19)),
    ],
)
def test_what_is_no_list_of_refs_is_refused(text: bytes) -> None:
    """Cut lines, names that git forbids, a wrong order, two formats, a line without end."""
    with pytest.raises(CorruptStreamError, match="line"):
        list(read_refs(Lines(io.BytesIO(text))))


@given(
    st.lists(
        st.sampled_from([b"a", b".", b"/", b"@", b"{", b"lock", b"-", b" ", b"~", b"\x7f", b"\xe9", b"\\", b"[", b"*"]),
        max_size=7,
    )
)
def test_names_are_valid_where_git_says_so(parts: list[bytes]) -> None:
    """Our rules for names of refs are those of git check-ref-format."""
    name = b"refs/" + b"".join(parts)
    done = subprocess.run([b"git", b"check-ref-format", name], check=False)
    assert (done.returncode == 0) == valid(name)


def test_what_git_bundles_is_read(tmp_path: Path) -> None:
    """A bundle of git's own, with prerequisites, is read to its end."""
    source = init(tmp_path / "a.git")
    first = commit(source, "refs/heads/main", "one")
    commit(source, "refs/heads/main", "two", parent=first)
    git(source, "bundle", "create", "--quiet", str(tmp_path / "b"), "main", f"^{first}")
    with (tmp_path / "b").open("rb") as file:
        reader = BundleReader(Lines(file))
        reader.start()
        assert [b"refs/heads/main"] == [name for _, name in reader.refs()]
        assert 3 == reader.pack(lambda: None).objects
    assert 1 == reader.prerequisites
