"""What one repository has in a backup that builds on another: the steps of that one, and what has changed since."""

from __future__ import annotations

import hashlib
from contextlib import closing
from itertools import islice
from typing import TYPE_CHECKING

from .bundle import opening
from .hooks import write_hooks
from .layout import read_refs
from .lines import Lines
from .writing import Outcome

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ...streams.sink import Buffer, Sink
    from .increments import Earlier
    from .repository import Refs
    from .writing import Writing


class NothingSharedError(Exception):
    """The repository has nothing of what the base has of it: it was made anew, or emptied."""


def write_increment(writing: Writing, earlier: Earlier) -> Outcome:
    """Write what is new in a repository; where nothing is, only take over what the base has of it.

    Raises `NothingSharedError`; `CorruptStreamError` where the base is found to be damaged; and what is raised by
    writing a repository in full. Then files may be left to discard.
    """
    hooks = _Digest()
    left_out: list[str] = []
    quick = writing.quick
    there = (quick is None or quick.hooks) and write_hooks(
        writing.local.path, lambda: hooks, cancel=writing.job.cancel, warn=left_out.append
    )
    same_hooks = (hooks.sha256.hexdigest() if there else None) == earlier.hooks_sha256
    if same_hooks and not left_out and quick is not None:
        same_refs = hashlib.sha256(quick.text).hexdigest() == earlier.refs_sha256
        if same_refs and _leads(quick.head, earlier):
            return _unchanged(writing, earlier)
    with closing(writing.local.refs()) as refs:
        same_refs = _digest(refs.lines(head_first=True)) == earlier.refs_sha256
        if same_hooks and same_refs and _leads(refs.head.reference, earlier):
            for message in (*left_out, *refs.warnings):
                writing.warn(message)
            return _unchanged(writing, earlier)
        if refs.object_format is None or refs.object_format != earlier.manifest.object_format:
            raise NothingSharedError
        steps = earlier.manifest.steps
        step = writing.step(*steps)
        bundle = writing.files.create(step.bundle_path)
        bundle.write(opening(refs.object_format))
        if same_refs:
            bundle.write(b"\n")
        else:
            _put_news(writing, refs, earlier, bundle)
        writing.hooks(step)
        manifest = writing.described(refs, (*steps, step))
    writing.files.take(earlier.base, earlier.names)
    writing.finish(manifest)
    return Outcome.INCREMENT


def _put_news(writing: Writing, refs: Refs, earlier: Earlier, bundle: Sink) -> None:
    """Write the rest of a bundle: all refs, also those to old objects, and a pack of what they lead to that is new.

    gitaly-backup before 18.3 restores what bundles say of refs, and not what the list beside them does.
    """
    with closing(writing.local.known(_earlier_oids(earlier))) as known:
        if next(known.oids(), None) is None:
            raise NothingSharedError
        for piece in known.commits():
            bundle.write(b"".join(b"-%s \n" % oid for oid in piece.splitlines()))
        writing.put(bundle, refs.lines(head_first=False))
        bundle.write(b"\n")
        writing.local.write_pack(refs, bundle, writing.job.read, without=known)


def _earlier_oids(earlier: Earlier) -> Iterator[bytes]:
    """Yield lines with the objects that the refs of the last step lead to: not HEAD's, to which no ref may lead."""
    with earlier.base.open(earlier.refs_name) as file:
        refs = (oid for oid, name in read_refs(Lines(file)) if name != b"HEAD")
        while oids := list(islice(refs, 1000)):
            yield b"\n".join(oids) + b"\n"


def _unchanged(writing: Writing, earlier: Earlier) -> Outcome:
    """Take over all that the base has of a repository, its manifest under the new id."""
    writing.files.take(earlier.base, earlier.names)
    writing.take_manifest(earlier.base, earlier.manifest_name, earlier.manifest_size)
    return Outcome.UNCHANGED


def _leads(head: bytes | None, earlier: Earlier) -> bool:
    """Tell whether HEAD names the branch that it named before."""
    return (head or b"") == earlier.manifest.head_reference.encode()


def _digest(pieces: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece)
    return digest.hexdigest()


class _Digest:
    """A sink that keeps the digest alone."""

    def __init__(self) -> None:
        self.sha256 = hashlib.sha256()

    def write(self, data: Buffer, /) -> None:
        self.sha256.update(data)

    def finish(self) -> None:
        pass

    def abort(self) -> None:
        pass
