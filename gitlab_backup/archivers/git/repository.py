"""Reading one repository: its refs, its HEAD, and its objects, so that they agree while others push to it."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import re
import stat
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, cast

from attrs import define, field, frozen

from ...errors import ComponentError, CorruptStreamError, StreamError
from ...streams.process import capture, run
from ...streams.sink import CountingSink
from .layout import OBJECT_FORMATS, parse_ref, read_refs, shown
from .lines import Lines

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ...streams.accounts import Account
    from ...streams.cancel import Cancellation
    from ...streams.sink import Buffer, Sink
    from .program import Git
    from .quick import QuickRefs

_IN_MEMORY: Final = 1 << 20
"""Bytes of a list of refs that are kept in memory; a longer one goes to a file that has no name."""
_FEW: Final = 1000
"""Refs whose object ids fit into a pipe, so that no thread has to feed them to git."""
_LONGEST_HEAD: Final = 4096
_PIECE: Final = 1 << 16
_FORMATS: Final = {length: name for name, length in OBJECT_FORMATS.items()}
_HEAD_BRANCH: Final = re.compile(rb"ref:[ \t]*(refs/[^\n]*?)[ \t\r\n]*\Z")


@frozen
class Head:
    """What HEAD of a repository says."""

    reference: bytes | None
    """The ref that it names, in full; None where it is detached."""
    oid: bytes | None
    """The object that it names itself, where it is detached."""


@define
class Refs:
    """All refs of a repository at one moment, and where HEAD pointed. Close it when done."""

    head: Head
    _spool: BinaryIO
    head_oid: bytes | None = None
    """What HEAD resolves to; None where its branch does not exist."""
    object_format: str | None = None
    """None where there is not one ref."""
    count: int = 0
    """The number of refs, without HEAD."""
    digest: bytes = b""
    """Equal for equal lists."""
    warnings: tuple[str, ...] = field(default=())
    """What git says of refs that it leaves out, because they name no object; the last of it, where there is much."""

    def lines(self, *, head_first: bool) -> Iterator[bytes]:
        """Yield pieces of lines `<object id> <name>`, sorted by name, with HEAD before or behind them."""
        head = b"" if self.head_oid is None else self.head_oid + b" HEAD\n"
        if head_first:
            yield head
        self._spool.seek(0)
        while piece := self._spool.read(_PIECE):
            yield piece
        if not head_first:
            yield head

    def oids(self) -> Iterator[bytes]:
        """Yield lines with the object ids, in pieces."""
        if self.head_oid is not None:
            yield self.head_oid + b"\n"
        self._spool.seek(0)
        while lines := self._spool.readlines(_PIECE):
            yield b"".join(line[: line.index(b" ")] + b"\n" for line in lines)

    def close(self) -> None:
        """Let go of the list."""
        self._spool.close()


@frozen
class Known:
    """Objects that were asked for, and what git knows of them. Close it when done."""

    _spool: BinaryIO

    def oids(self) -> Iterator[bytes]:
        """Yield lines with the ids of those that are there, in pieces."""
        return self._of(lambda line: not line.endswith(b" missing\n"))

    def commits(self) -> Iterator[bytes]:
        """Yield lines with the ids of those that are commits, in pieces."""
        return self._of(lambda line: line.endswith(b" commit\n"))

    def _of(self, wanted: Callable[[bytes], bool]) -> Iterator[bytes]:
        self._spool.seek(0)
        while lines := self._spool.readlines(_PIECE):
            if piece := b"".join(line[: line.index(b" ")] + b"\n" for line in lines if wanted(line)):
                yield piece

    def close(self) -> None:
        """Let go of it."""
        self._spool.close()


def refs_without_git(quick: QuickRefs) -> Refs | None:
    """Return what was read without git as a list of refs; None where it is not quite one.

    Unlike git, this does not leave out refs to objects that are not there: whatever then reads the objects fails.
    """
    lines = Lines(io.BytesIO(quick.text))
    oid = head_oid = None
    try:
        for oid, name in read_refs(lines):
            if name == b"HEAD":
                head_oid = oid
    except CorruptStreamError:
        return None
    text = quick.text if head_oid is None else quick.text[quick.text.index(b"\n") + 1 :]
    return Refs(
        head=Head(quick.head, None),
        spool=io.BytesIO(text),
        head_oid=head_oid,
        object_format=None if oid is None else _FORMATS[len(oid)],
        count=lines.number - (head_oid is not None),
        digest=hashlib.sha256(text).digest(),
    )


def _revisions(refs: Refs, without: Known | None) -> Iterator[bytes]:
    yield from refs.oids()
    if without is not None:
        yield b"--not\n"
        yield from without.oids()


@frozen(kw_only=True)
class LocalRepository:
    """A repository on a storage of this machine.

    Its methods raise `ComponentError`, `ProgramError` or `OSError` where something is wrong with it, and
    `StreamError` where `spool_directory` or a sink cannot be written.
    """

    path: str
    account: Account | None
    git: Git
    cancel: Cancellation
    spool_directory: Path

    def exists(self) -> bool:
        """Tell whether there is a repository; none is normal, for GitLab makes wikis and designs when they are used.

        Raises `ComponentError` where there is something that is none, or none that this can read.
        """
        path = self.path
        try:
            if not stat.S_ISDIR(os.stat(path).st_mode):  # noqa: PTH116 - a Path for each of many is slow
                raise ComponentError("is not a directory")
        except (FileNotFoundError, NotADirectoryError):
            return False
        for name, is_kind, kind in _PARTS:
            try:
                status = os.stat(f"{path}/{name}", follow_symlinks=name != "HEAD")  # noqa: PTH116 - likewise
            except FileNotFoundError:
                raise ComponentError(f"is not a repository: {name!r} does not exist in it") from None
            if not is_kind(status.st_mode):
                raise ComponentError(f"is not a repository: {name!r} in it is not a {kind}")
        if os.path.exists(f"{path}/reftable"):  # noqa: PTH110 - likewise
            raise ComponentError(
                "keeps its refs in a reftable, which this archiver does not read",
                hint="Use the archiver gitaly, or git refs migrate.",
            )
        return True

    def refs(self) -> Refs:
        """Read all refs, by one run of git, and HEAD, which is a file with one line (gitrepository-layout(5))."""
        spooled = tempfile.SpooledTemporaryFile(_IN_MEMORY, dir=str(self.spool_directory))  # noqa: SIM115 - Refs closes it
        spool = cast("BinaryIO", spooled)
        try:
            command = self.git.on(
                self.path, self.account, "for-each-ref", "--sort=refname", "--format=%(objectname) %(refname)"
            )
            into = _Spool(spool)
            done = run(command, stdout=into, cancel=self.cancel)
            refs = Refs(head=self._head(), spool=spool, digest=into.digest.digest())
            refs.warnings = tuple(line for line in done.stderr.splitlines() if line.strip())
            self._look_through(refs, spool)
        except BaseException:
            spool.close()
            raise
        return refs

    def object_format(self) -> str:
        """Return the object format, by a run of git: for a repository without refs, whose lengths would tell."""
        _, output = capture(
            self.git.on(self.path, self.account, "rev-parse", "--show-object-format"), cancel=self.cancel, limit=_PIECE
        )
        name = output.decode(errors="replace").strip()
        if name not in OBJECT_FORMATS:
            raise ComponentError(f"has the unknown object format {name!r}")
        return name

    def known(self, oids: Iterator[bytes]) -> Known:
        """Find out which of these objects (a line each) there are still, by one run of git. Close the result."""
        spooled = tempfile.SpooledTemporaryFile(_IN_MEMORY, dir=str(self.spool_directory))  # noqa: SIM115 - Known closes it
        spool = cast("BinaryIO", spooled)
        try:
            command = self.git.on(
                self.path, self.account, "cat-file", "--batch-check=%(objectname) %(objecttype)", "--buffer"
            )
            run(command, stdin=oids, stdout=_Spool(spool), cancel=self.cancel)
        except BaseException:
            spool.close()
            raise
        return Known(spool)

    def reachable(self, refs: Refs) -> int:
        """Return how many objects `refs` lead to, with those that they name, by one run of git.

        It fails where one of them is not there, and where one that leads to others cannot be read. Like `write_pack`
        it believes the bitmaps of housekeeping.
        """
        command = self.git.on(
            self.path, self.account, "rev-list", "--objects", "--count", "--use-bitmap-index", "--stdin"
        )
        stdin = b"".join(refs.oids()) if refs.count < _FEW else refs.oids()
        _, output = capture(command, stdin=stdin, cancel=self.cancel, limit=_PIECE)
        if not output.strip().isdigit():
            raise ComponentError(f"has objects of which git does not say how many they are: {shown(output)}")
        return int(output)

    def write_pack(self, refs: Refs, sink: Sink, count: Callable[[int], None], *, without: Known | None = None) -> None:
        """Write a pack of everything that `refs` reach into `sink`, which is not finished.

        The options are those that `git bundle create` passes (`bundle.c`). With `without`, what these objects reach is
        left out, and may be the base of a delta; else nothing is missing. Objects of an object pool are part of it.
        Deltas and packed objects are taken over as they are.
        """
        options = ("--thin",) if without is not None else ()
        command = self.git.on(
            self.path, self.account, "pack-objects", "--revs", "--stdout", "--delta-base-offset", "--quiet", *options
        )
        size = 0

        def counted(more: int) -> None:
            nonlocal size
            size += more
            count(more)

        run(command, stdin=_revisions(refs, without), stdout=CountingSink(sink, counted), cancel=self.cancel)
        if not size:  # one without objects has a header, too
            raise ComponentError("got no pack from git, which says that it has succeeded")

    def _look_through(self, refs: Refs, spool: BinaryIO) -> None:
        spool.seek(0)
        lines = Lines(spool)
        wanted = refs.head.reference
        oid = refs.head.oid
        try:
            while (line := lines.line()) is not None:
                oid, name = parse_ref(line)
                if name == wanted:
                    refs.head_oid = oid
        except CorruptStreamError as error:
            raise ComponentError(f"has a list of refs that {error.message}") from None
        refs.count = lines.number
        if refs.head.oid is not None:
            refs.head_oid = refs.head.oid
        if oid is not None:
            refs.object_format = _FORMATS[len(oid)]

    def _head(self) -> Head:
        path = f"{self.path}/HEAD"
        try:
            # Not blocking, should it have become a pipe.
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            if error.errno != errno.ELOOP:
                raise
            content = b"ref: " + os.fsencode(Path(path).readlink())  # as very old versions of git wrote it
        else:
            try:
                content = os.read(fd, _LONGEST_HEAD)
            finally:
                os.close(fd)
        if match := _HEAD_BRANCH.match(content):
            return Head(match[1], None)
        oid = content.strip()
        try:
            parse_ref(oid + b" HEAD")
        except CorruptStreamError:
            raise ComponentError(f"has a HEAD that cannot be understood: {shown(content)}") from None
        return Head(None, oid)


_PARTS: Final = (
    ("objects", stat.S_ISDIR, "directory"),
    ("refs", stat.S_ISDIR, "directory"),
    ("HEAD", lambda mode: stat.S_ISREG(mode) or stat.S_ISLNK(mode), "file"),
)


class _Spool:
    """Writes into a temporary file."""

    def __init__(self, spool: BinaryIO) -> None:
        self._spool = spool
        self.digest = hashlib.sha256()

    def write(self, data: Buffer, /) -> None:
        self.digest.update(data)
        try:
            self._spool.write(data)
        except OSError as error:
            raise StreamError(f"a list of refs cannot be kept: {error.strerror}") from error

    def finish(self) -> None:
        pass

    def abort(self) -> None:
        pass
