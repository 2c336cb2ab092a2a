"""The layout of gitaly-backup: where the files of a repository lie, its manifest, and its list of refs.

This is the layout `manifest` of gitaly-backup (Gitaly, `internal/backup/locator.go` and `manifest.go`), which it has
written by default since 16.10. Below the root of the component, for storage S, relative path P (with `.git`) and
backup id ID:

* `S/P/ID/NNN.bundle`, `NNN.refs`, `NNN.custom_hooks.tar`: what step NNN holds, counted from 001. The steps of an
  increment lie under the id of the increment;
* `manifests/S/P/ID.toml`: the steps that bring the repository to the state of ID, the oldest first;
* `manifests/S/P/+latest.toml`: a copy of the newest of these.

All paths in a manifest are relative to that root.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, TypeVar

from attrs import frozen

from ... import toml
from ...errors import CorruptStreamError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .lines import Lines

T = TypeVar("T")

MANIFESTS: Final = "manifests"
LATEST: Final = "+latest.toml"
RESERVED: Final = frozenset({MANIFESTS, "backup_ids"})
"""Names at the root that no storage can have: Gitaly 18.11 and later keep a mark for each backup in `backup_ids`."""

ABSENT: Final = b"empty = true\nnon_existent = true\n"
"""What `RepositoryManifest.to_toml` begins with for a repository that did not exist."""

OBJECT_FORMATS: Final = {"sha1": 40, "sha256": 64}
"""Each object format of Git, and how many hexadecimal digits its object ids have."""


@frozen(kw_only=True)
class Step:
    """The files of one step. A file need not exist: no bundle and no hooks are kept where there is nothing to keep."""

    bundle_path: str
    ref_path: str
    custom_hooks_path: str
    previous_ref_path: str | None = None
    """The list of refs of the step before; None for the first."""

    @classmethod
    def of(cls, storage: str, relative_path: str, backup_id: str, number: int, previous: Step | None = None) -> Step:
        """Return step `number` (counted from 1), written by the backup `backup_id`."""
        stem = f"{storage}/{relative_path}/{backup_id}/{number:03}"
        return cls(
            bundle_path=f"{stem}.bundle",
            ref_path=f"{stem}.refs",
            custom_hooks_path=f"{stem}.custom_hooks.tar",
            previous_ref_path=None if previous is None else previous.ref_path,
        )


@frozen(kw_only=True)
class RepositoryManifest:
    """What a backup says of one repository."""

    object_format: str
    """`sha1` or `sha256`. gitaly-backup leaves it empty where the repository does not exist."""
    steps: tuple[Step, ...]
    head_reference: str = ""
    """The branch that HEAD names, in full, whether it exists or not. Empty where HEAD is detached: then the line of
    HEAD in the list of refs has the commit."""
    empty: bool = False
    non_existent: bool = False

    def to_toml(self) -> bytes:
        """Return it as gitaly-backup 17.6 and later write it; all versions read it."""
        lines = [
            f"empty = {_boolean(self.empty)}",
            f"non_existent = {_boolean(self.non_existent)}",
            f"object_format = {_string(self.object_format)}",
        ]
        if self.head_reference:
            lines.append(f"head_reference = {_string(self.head_reference)}")
        for step in self.steps:
            lines += [
                "",
                "[[steps]]",
                f"bundle_path = {_string(step.bundle_path)}",
                f"ref_path = {_string(step.ref_path)}",
            ]
            if step.previous_ref_path is not None:
                lines.append(f"previous_ref_path = {_string(step.previous_ref_path)}")
            lines.append(f"custom_hooks_path = {_string(step.custom_hooks_path)}")
        return ("\n".join(lines) + "\n").encode()

    @classmethod
    def from_toml(cls, data: bytes) -> RepositoryManifest:
        """Read what any version of gitaly-backup, or `to_toml`, has written. Keys that are not known are passed over.

        Raises `CorruptStreamError` where it is not a manifest, or a path in it leads out of the component.
        """
        try:
            document = plain_document(data) or toml.parse(data)
        except ValueError as error:
            raise CorruptStreamError(f"is not TOML: {error}") from None
        non_existent = _get(document, "non_existent", bool, False)  # noqa: FBT003 - a default
        object_format = _get(document, "object_format", str, "")
        if object_format not in OBJECT_FORMATS and not (non_existent and not object_format):
            raise CorruptStreamError(f"has an unknown object format: {object_format!r}")
        tables = _get(document, "steps", list, [])
        if not tables:
            raise CorruptStreamError("has no steps")
        return cls(
            object_format=object_format,
            steps=tuple(_step(table, number) for number, table in enumerate(tables, start=1)),
            head_reference=_get(document, "head_reference", str, ""),
            empty=_get(document, "empty", bool, False),  # noqa: FBT003 - a default
            non_existent=non_existent,
        )


# A literal string of TOML, with printable ASCII alone: nearly all that is ever in one.
_TEXT: Final = r"'[ -&(-~]*'"
_STEP: Final = (
    rf"\n\[\[steps\]\]\nbundle_path = {_TEXT}\nref_path = {_TEXT}\n"
    rf"(?:previous_ref_path = {_TEXT}\n)?custom_hooks_path = {_TEXT}\n"
)
_MANIFEST: Final = re.compile(
    rf"(?:empty = (true|false)\nnon_existent = (true|false)\n)?object_format = ({_TEXT})\n"
    rf"(?:head_reference = ({_TEXT})\n)?((?:{_STEP})+)"
)
_PATH: Final = re.compile(r"([a-z_]+) = '(.*)'\n")


def plain_document(data: bytes) -> dict[str, object] | None:
    """Return what `tomllib.loads` would, where that is known at a glance; else None. It takes a tenth of the time."""
    found = _MANIFEST.fullmatch(data.decode("latin-1"))
    if found is None:
        return None
    empty, non_existent, object_format, head, steps = found.groups()
    document: dict[str, object] = {"object_format": object_format[1:-1]}
    if empty is not None:
        document |= {"empty": empty == "true", "non_existent": non_existent == "true"}
    if head is not None:
        document["head_reference"] = head[1:-1]
    document["steps"] = [dict(_PATH.findall(step)) for step in steps.split("\n[[steps]]\n")[1:]]
    return document


def manifest_path(storage: str, relative_path: str, backup_id: str) -> str:
    """Return where the manifest of a repository lies, relative to the root of the component."""
    return f"{MANIFESTS}/{storage}/{relative_path}/{backup_id}.toml"


def latest_path(storage: str, relative_path: str) -> str:
    """Return where the copy of its newest manifest lies."""
    return f"{MANIFESTS}/{storage}/{relative_path}/{LATEST}"


def is_safe(path: str) -> bool:
    """Tell whether `path` is relative, and stays below where it starts."""
    return "\0" not in path and not {"", ".", ".."} & set(path.split("/"))


# What git-check-ref-format(1) allows, for names below refs/.
_REF_NAME: Final = re.compile(
    rb"refs(?:/(?!\.)(?:(?!\.\.|@\{|\.lock(?:/|\Z))[^\x00-\x20\x7f~^:?*\[\\/])+)+(?<!\.)", re.DOTALL
)
_OID: Final = re.compile(rb"(?:[0-9a-f]{40}|[0-9a-f]{64})")


def is_ref_name(name: bytes) -> bool:
    """Tell whether `name` is a full name of a ref below `refs/`, as git-check-ref-format(1) allows it."""
    return _REF_NAME.fullmatch(name) is not None


def parse_ref(line: bytes) -> tuple[bytes, bytes]:
    """Split a line `<object id> <name>` of a list of refs or of a bundle's header (without its end).

    Raises `CorruptStreamError` where it is not one.
    """
    oid, _, name = line.partition(b" ")
    if not _OID.fullmatch(oid):
        raise CorruptStreamError(f"does not begin with an object id: {shown(line)}")
    if name != b"HEAD" and not is_ref_name(name):
        raise CorruptStreamError(f"has no valid name of a ref: {shown(line)}")
    return oid, name


def shown(data: bytes) -> str:
    """Return `data` fit for a message."""
    cut = data[:80]
    return ascii(cut.decode("utf-8", "backslashreplace")) + ("…" if len(data) > len(cut) else "")


def read_refs(lines: Lines) -> Iterator[tuple[bytes, bytes]]:
    """Yield the object ids and names of a list of refs (`NNN.refs`).

    The text is that of `git show-ref --head`: HEAD first, if it resolves, then all refs sorted by name, tags not
    peeled. Raises `CorruptStreamError`, with the number of the line, where it is something else.
    """
    previous = b""
    length = 0
    while (line := lines.line()) is not None:
        try:
            oid, name = parse_ref(line)
        except CorruptStreamError as error:
            raise CorruptStreamError(f"line {lines.number} {error.message}") from None
        length = length or len(oid)
        if len(oid) != length:
            raise CorruptStreamError(f"line {lines.number} has an object id of another format")
        if name == b"HEAD" and lines.number > 1:
            raise CorruptStreamError(f"line {lines.number} is HEAD, which comes first if at all")
        if name != b"HEAD":
            if name <= previous:
                raise CorruptStreamError(f"line {lines.number} is not in order: {shown(name)}")
            previous = name
        yield oid, name


def _step(table: object, number: int) -> Step:
    if not isinstance(table, dict):
        raise CorruptStreamError(f"has a step {number} that is not a table")
    paths = {key: _get(table, key, str, "") for key in ("bundle_path", "ref_path", "custom_hooks_path")}
    previous = _get(table, "previous_ref_path", str, "")
    for key, path in {**paths, **({"previous_ref_path": previous} if previous else {})}.items():
        if not is_safe(path):
            raise CorruptStreamError(f"has a step {number} whose {key} is not a path inside the backup: {path!r}")
    return Step(**paths, previous_ref_path=previous or None)


def _get(table: dict[str, object], key: str, kind: type[T], default: T) -> T:
    value = table.get(key, default)
    if not isinstance(value, kind):
        raise CorruptStreamError(f"has a {key} that is not of the type {kind.__name__}")
    return value


def _boolean(value: bool) -> str:  # noqa: FBT001 - what it turns into text
    return "true" if value else "false"


def _string(text: str) -> str:
    """Return a TOML string: literal, as gitaly-backup writes, unless only a basic one can hold the text."""
    if text.isprintable() and "'" not in text:
        return f"'{text}'"
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(c if c.isprintable() else f"\\U{ord(c):08x}" for c in escaped) + '"'
