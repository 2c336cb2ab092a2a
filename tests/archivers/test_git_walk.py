"""What refs lead to in a pack, counted without git: as git counts it, or not at all."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from gitlab_backup.archivers.git import walk
from gitlab_backup.archivers.git.quick import quick_refs
from gitlab_backup.archivers.git.repository import refs_without_git
from gitlab_backup.archivers.git.sole_pack import sole_pack
from tests.support.repositories import git

from .git_run import init

if TYPE_CHECKING:
    from pathlib import Path

COMMITS = 12


def made(path: Path, object_format: str) -> Path:
    """Make a history that grows and shrinks, with all that a tree may have, and tags and refs of all kinds."""
    init(path, f"--object-format={object_format}")
    source = random.Random(object_format)
    lines = [source.randbytes(20).hex() for _ in range(200)]
    zero = "1" * (40 if object_format == "sha1" else 64)
    commands: list[str] = []
    for number in range(COMMITS):
        lines[source.randrange(len(lines))] = f"changed by {number}"
        lines += [f"added by {number}"] * source.randrange(3)
        text = "\n".join(lines)
        commands += [
            f"commit refs/heads/main\nmark :{number + 1}\ncommitter C <c@example.com> {number} +0000\ndata 1\nc",
            f"M 100644 inline deep/er/file\ndata {len(text)}\n{text}",
            f"M 100755 inline run{number}\ndata 2\n#!",
            f"M 120000 inline link\ndata 1\n{number % 10}",
            f"M 160000 {zero} submodule",
            *(f"M 100644 inline many/{each}\ndata 1\n{each % 7}" for each in range(60 if number == 0 else 1)),
        ]
    commands.append("reset refs/heads/other\nfrom :9\n")
    commands.append("commit refs/heads/merged\ncommitter C <c@example.com> 99 +0000\ndata 1\nm")
    commands.append("from :12\nmerge :7\nM 100644 inline new\ndata 1\nn")
    git(path, "fast-import", "--quiet", stdin=("\n".join(commands) + "\n").encode())
    for name, of, kind in (
        ("v1", "refs/heads/main", "commit"),
        ("v2", "refs/tags/v1", "tag"),
        ("t", "main^{tree}", "tree"),
    ):
        oid = git(path, "rev-parse", of).decode().strip()
        text = f"object {oid}\ntype {kind}\ntag {name}\ntagger T <t@example.com> 0 +0000\n\nt\n"
        git(path, "update-ref", f"refs/tags/{name}", git(path, "mktag", stdin=text.encode()).decode().strip())
    git(path, "update-ref", "refs/tags/blob", "main~4:deep/er/file")
    git(path, "update-ref", "refs/tags/tree", "main~2:deep")
    return path


def counted(path: Path) -> tuple[int | None, int]:
    """Return what is counted without git, and how many objects the pack has."""
    quick = quick_refs(str(path))
    assert quick is not None
    refs = refs_without_git(quick)
    assert refs is not None
    with sole_pack(str(path)) as pack:
        assert pack is not None
        return walk.count_reachable(pack, refs.object_format or "", refs.oids()), pack.objects


def listed(path: Path) -> list[list[str]]:
    """Return the objects of the pack, as git shows them: id, kind, sizes, offset, and of a delta its depth and base."""
    (index,) = path.glob("objects/pack/*.idx")
    lines = [line.split() for line in git(path, "verify-pack", "-v", str(index)).decode().splitlines()]
    return [words for words in lines if len(words) in {5, 7} and words[1] in {"commit", "tree", "blob", "tag"}]


@pytest.mark.parametrize("object_format", ["sha1", "sha256"])
@pytest.mark.parametrize("by_offset", ["true", "false"])
def test_it_counts_what_git_counts(
    tmp_path: Path, object_format: str, by_offset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Deltas of both kinds, all kinds of objects and refs, objects that nothing leads to; large ones are left alone."""
    path = made(tmp_path / "r.git", object_format)
    git(path, "-c", f"repack.useDeltaBaseOffset={by_offset}", "repack", "-adfq", "--depth=50", "--window=50")
    by_git = int(git(path, "rev-list", "--objects", "--count", "--all"))
    deltas = {words[1] for words in listed(path) if len(words) == 7}
    assert ({"blob", "tree"}, (by_git, by_git)) == (deltas & {"blob", "tree"}, counted(path))
    git(path, "update-ref", "-d", "refs/heads/merged")
    by_git_without = int(git(path, "rev-list", "--objects", "--count", "--all"))
    assert by_git_without < by_git
    assert (by_git_without, by_git) == counted(path)
    for name, value in (("_MOST_OBJECTS", by_git - 1), ("_LARGEST", 1000), ("_MOST_BYTES", 5000), ("_DEEPEST", 0)):
        with monkeypatch.context() as patch:
            patch.setattr(walk, name, value)
            assert (name, (None, by_git)) == (name, counted(path))


def test_damage_is_left_to_git(tmp_path: Path) -> None:
    """A tag, commit or tree with other bytes, an object that is not in the index, a strange index: no count."""
    path = made(tmp_path / "r.git", "sha1")
    git(path, "repack", "-adfq")
    (pack,) = path.glob("objects/pack/*.pack")
    (index,) = path.glob("objects/pack/*.idx")
    objects, whole, names = listed(path), pack.read_bytes(), index.read_bytes()
    for file in (pack, index):
        file.chmod(0o600)
    tried = set()
    for words in objects:
        if words[1] == "blob":
            continue
        middle = int(words[4]) + int(words[3]) - 6
        pack.write_bytes(whole[:middle] + bytes([whole[middle] ^ 0xFF]) + whole[middle + 1 :])
        assert (words, None) == (words, counted(path)[0])
        tried.add(words[1])
    assert {"commit", "tree", "tag"} == tried
    pack.write_bytes(whole)
    for words in objects:
        oid = bytes.fromhex(words[0])
        index.write_bytes(names.replace(oid, oid[:-1] + bytes([oid[-1] ^ 1])))
        assert (words, None) == (words, counted(path)[0])
    for content in (names[:-1], names + b"\0", b"\0" + names[1:], names[:-30] + b"\0" + names[-29:], b""):
        index.write_bytes(content)
        assert counted(path)[0] is None
    index.write_bytes(names)
    assert counted(path) == (len(objects), len(objects))
