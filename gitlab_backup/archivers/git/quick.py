"""The refs of a repository, read without git: to save a process for each of many repositories.

Only the plain case is read: what is in `packed-refs`, and files below `refs/` on top of it (gitrepository-layout(5),
and git's `refs/files-backend.c`). Whatever else there is, git is asked. Unlike git, this does not look whether the
objects are there, so what it returns is only good to be compared with a list that git has made before, or where
something reads the objects after it, and fails without them.
"""

from __future__ import annotations

import os
import re
from functools import lru_cache
from typing import Final

from attrs import frozen

from .layout import OBJECT_FORMATS, is_ref_name

HOOKS: Final = "custom_hooks"
"""The directory of a repository's own hooks."""
_STRANGE: Final = frozenset({"commondir", "gitdir", "worktrees", "reftable", "config.worktree"})
"""What makes refs come from elsewhere as well."""
_LARGEST: Final = 16 << 20
"""Bytes of `packed-refs` that are held in memory. A longer list is git's, which goes by way of a file."""
_LINES: Final = {
    digits: re.compile(rb"(?:[0-9a-f]{%d} refs/[^\n]+\n(?:\^[0-9a-f]{%d}\n)?)*+" % (digits, digits))
    for digits in OBJECT_FORMATS.values()
}
_PEELED: Final = re.compile(rb"^\^.*\n", re.MULTILINE)
_OBJECT_ID: Final = {digits: re.compile(rb"[0-9a-f]{%d}\n" % digits) for digits in OBJECT_FORMATS.values()}
_HEAD: Final = re.compile(rb"ref: (refs/[^ \t\r\n]+)\n")

_SECTION: Final = re.compile(r'\[([A-Za-z0-9.-]+)(?: "[^"\\\n]*")?\]')
_SETTING: Final = re.compile(r"([A-Za-z][A-Za-z0-9-]*) *= *([^\"\\;#\n]*)")


@frozen
class QuickRefs:
    """What was found."""

    text: bytes
    """What `git show-ref --head` would print."""
    head: bytes
    """The branch that HEAD names, in full."""
    hooks: bool
    """Whether there is something at the place of the custom hooks."""


def quick_refs(repository: str) -> QuickRefs | None:
    """Return the refs of a repository; None where git has to be asked, whatever the reason.

    Or where it is none: that there are directories for objects and refs, and a HEAD, is part of the plain case.
    """
    try:
        return _read(repository)
    except (_AskGitError, OSError):
        return None


class _AskGitError(Exception):
    """There is something that is not plain."""


def _read(repository: str) -> QuickRefs:
    with os.scandir(repository) as entries:
        # Their kinds came with their names: asking for them is no system call.
        names = {entry.name: entry.is_dir(follow_symlinks=False) for entry in entries}
    if not _STRANGE.isdisjoint(names) or not names.get("objects") or not names.get("refs"):
        raise _AskGitError
    digits = _digits(_content(f"{repository}/config", 1 << 16))
    head = _HEAD.fullmatch(_content(f"{repository}/HEAD", 1 << 12))
    if head is None or digits is None:
        raise _AskGitError
    # Before `packed-refs`, as git does: what is packed meanwhile is found there.
    loose: dict[bytes, bytes] = {}
    _add_loose(f"{repository}/refs", b"refs", digits, loose)
    packed = _packed(_content(f"{repository}/packed-refs", _LARGEST), digits) if "packed-refs" in names else b""
    if loose:
        refs = {line[digits + 1 :]: line[:digits] for line in packed.splitlines()} | loose
        packed = b"".join(b"%s %s\n" % (refs[name], name) for name in sorted(refs))
    name = head[1]
    found = packed.find(b" %s\n" % name)
    first = b"" if found < 0 else packed[found - digits : found] + b" HEAD\n"
    return QuickRefs(first + packed, name, HOOKS in names)


def _add_loose(directory: str, prefix: bytes, digits: int, refs: dict[bytes, bytes]) -> None:
    with os.scandir(directory) as entries:
        for entry in entries:
            name = b"%s/%s" % (prefix, os.fsencode(entry.name))
            if entry.is_dir(follow_symlinks=False):
                _add_loose(entry.path, name, digits, refs)
                continue
            # A symbolic link, a lock, a name that git passes over.
            if not entry.is_file(follow_symlinks=False) or not is_ref_name(name):
                raise _AskGitError
            try:
                content = _content(entry.path, 1 << 12)
            except FileNotFoundError:
                continue  # packed, or deleted, since it was listed
            # Among others a symbolic ref, and what a crash has left empty.
            if not _OBJECT_ID[digits].fullmatch(content) or not content.strip(b"0\n"):
                raise _AskGitError
            refs[name] = content[:digits]


def _packed(content: bytes, digits: int) -> bytes:
    """Return the refs of `packed-refs`, a line each."""
    if content.startswith(b"#"):
        content = content[content.index(b"\n") + 1 :] if b"\n" in content else b""
    if not _LINES[digits].fullmatch(content):
        raise _AskGitError
    return _PEELED.sub(b"", content)


@lru_cache(maxsize=1024)
def _digits(config: bytes) -> int | None:
    """Return the length of object ids by a configuration that has no influence on the refs; else None."""
    version, object_format, section = "0", "", ""
    for line in config.decode(errors="replace").splitlines():
        text = line.strip()
        if not text or text[0] in "#;":
            continue
        if found := _SECTION.fullmatch(text):
            section = found[1].lower()
            if section.partition(".")[0] in {"include", "includeif"}:
                return None
            continue
        setting = _SETTING.fullmatch(text)
        if setting is None:
            return None
        key, value = f"{section}.{setting[1].lower()}", setting[2].strip()
        if key == "core.repositoryformatversion":
            version = value
        elif key == "extensions.objectformat":
            object_format = value
        elif section == "extensions":
            return None
    if (version, object_format) not in {("0", ""), ("1", ""), ("1", "sha1"), ("1", "sha256")}:
        return None
    return OBJECT_FORMATS[object_format or "sha1"]


def _content(path: str, limit: int) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        content = b""
        while data := os.read(fd, min(limit, 1 << 20)):
            content += data
            if len(content) > limit:
                raise _AskGitError
        return content
    finally:
        os.close(fd)
