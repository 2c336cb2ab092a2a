"""One repository from its steps in a backup: built in a directory of its own, and checked there."""

from __future__ import annotations

import os
import stat
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, BinaryIO, Final, cast

from attrs import frozen

from ...errors import ComponentError, CorruptStreamError, StreamError
from ...streams.files import FileSink, put, remove_tree
from ...streams.process import run
from ...streams.system import system
from ...streams.tar import extract
from .bundle import BundleReader, is_empty_pack
from .layout import OBJECT_FORMATS, is_ref_name, read_refs, shown
from .lines import Lines
from .quick import HOOKS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ...streams.accounts import Account
    from ...streams.cancel import Cancellation
    from ...streams.sink import Buffer
    from ..base import RestoreJob
    from .layout import RepositoryManifest, Step
    from .placing import Place
    from .program import Git

_IN_MEMORY: Final = 1 << 20
_MODE: Final = 0o750
"""Of the directory of a repository that was not there before, as Gitaly makes it."""
_FALLBACK_HEAD: Final = "refs/heads/main"


@frozen(kw_only=True)
class Builder:
    """Builds repositories for one storage."""

    job: RestoreJob
    git: Git
    account: Account | None
    place: Place
    cancel: Cancellation
    configurations: dict[str, bytes]
    """What git writes into the configuration of a new repository, for each object format."""

    def build(self, relative: str, manifest: RepositoryManifest) -> bool:
        """Build the repository; return False where it did not exist. Where that fails, nothing of it is left.

        Raises `ComponentError`, `ProgramError`, `StreamError` or `OSError`, and `CancelledError`.
        """
        last = manifest.steps[-1]
        if manifest.non_existent and not self._has(last.ref_path):
            return False
        target = self.place.new / relative
        try:
            self.place.make_parents(target)
            self._skeleton(target, manifest.object_format)
            for number, step in enumerate(manifest.steps, start=1):
                self._objects(target, step, number, manifest)
            with tempfile.SpooledTemporaryFile(_IN_MEMORY, dir=str(self.place.work)) as spool:
                head_oid, count = self._refs(target, manifest, spool)
                self._head(target, relative, manifest, head_oid)
                self._check(target, manifest, spool, head_oid, count)
            self._hooks(target, last)
            self._settle(target, self.place.storage / relative)
        except BaseException:
            remove_tree(target)
            raise
        return True

    def _has(self, path: str) -> bool:
        return (self.job.root / self.job.component.destination / path).is_file()

    def _open(self, path: str) -> BinaryIO:
        return self.job.open_file(f"{self.job.component.destination}/{path}")

    def _skeleton(self, target: Path, object_format: str) -> None:
        """Make what `git init` makes, without running it for each."""
        for below in ("", "objects", "objects/info", "objects/pack", "refs", "refs/heads", "refs/tags"):
            system().mkdir(target / below, 0o700)
        put(target / "config", self.configurations[object_format])
        put(target / "HEAD", f"ref: {_FALLBACK_HEAD}\n".encode())
        self._give_all(target)

    def _give_all(self, top: Path) -> None:
        if self.account is None:
            return
        for directory, below, files in os.walk(top):
            for name in (".", *below, *files):
                os.chown(Path(directory, name), self.account.uid, self.account.gid, follow_symlinks=False)

    def _objects(self, target: Path, step: Step, number: int, manifest: RepositoryManifest) -> None:
        if not self._has(step.bundle_path):
            with self._refs_of(step, manifest) as lines:
                if lines.line() is not None:
                    raise ComponentError(f"its step {number} has refs, but no bundle: {step.bundle_path} is missing")
            return
        with self._open(step.bundle_path) as source, _about(step.bundle_path):
            lines = Lines(source)
            reader = BundleReader(lines)
            reader.start()
            if reader.object_format != manifest.object_format:
                raise CorruptStreamError(
                    f"is of the object format {reader.object_format}, the repository of {manifest.object_format}"
                )
            for _ in reader.refs():
                self.cancel.check()
            pieces = self._counted(lines.rest())
            first = next(pieces, None)
            if first is None or is_empty_pack(first):
                return  # an increment in which nothing is new
            # What a pack says of itself is checked, and that it has the bases of its deltas; not whether its objects
            # are what git would accept today: GitLab has repositories that are not, and Gitaly fetches as leniently.
            command = self.git.on(target, self.account, "index-pack", "--stdin", "--fix-thin")
            run(command, stdin=_chain(first, pieces), cancel=self.cancel)

    def _counted(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        for piece in pieces:
            self.job.progress(len(piece), len(piece))
            yield piece

    def _refs_of(self, step: Step, manifest: RepositoryManifest) -> _OpenLines:
        if self._has(step.ref_path):
            return _OpenLines(self._open(step.ref_path))
        if not manifest.empty and not manifest.non_existent:
            raise ComponentError(f"its list of refs is missing: {step.ref_path}")
        return _OpenLines(None)

    def _refs(self, target: Path, manifest: RepositoryManifest, spool: IO[bytes]) -> tuple[bytes | None, int]:
        """Write all refs of the last step. `packed-refs` is a file that git only reads, one for them all."""
        step = manifest.steps[-1]
        head_oid, count = None, 0
        above: list[bytes] = []
        with self._refs_of(step, manifest) as lines, _about(step.ref_path):
            for oid, name in read_refs(lines):
                self.cancel.check()
                if len(oid) != OBJECT_FORMATS[manifest.object_format]:
                    raise CorruptStreamError(f"line {lines.number} has an object id of another format")
                if name == b"HEAD":
                    head_oid = oid
                    continue
                # In this order a name comes after those that it begins with.
                while above and not name.startswith(above[-1]):
                    above.pop()
                if any(name.startswith(one + b"/") for one in above):
                    raise CorruptStreamError(
                        f"line {lines.number} is below a ref, not below a directory: {shown(name)}"
                    )
                above.append(name)
                spool.write(oid + b" " + name + b"\n")
                count += 1
        if count:
            with FileSink(target / "packed-refs", mode=0o644) as packed:
                # Not `peeled`: what annotated tags point to is found out by git when it is asked.
                packed.write(b"# pack-refs with: sorted \n")
                spool.seek(0)
                while piece := spool.read(1 << 16):
                    packed.write(piece)
        return head_oid, count

    def _head(self, target: Path, relative: str, manifest: RepositoryManifest, head_oid: bytes | None) -> None:
        if manifest.head_reference:
            name = manifest.head_reference.encode()
            if not is_ref_name(name):
                raise ComponentError(f"its HEAD names no ref: {shown(name)}")
            content = b"ref: " + name + b"\n"
        elif head_oid is not None:
            content = head_oid + b"\n"
        else:
            if manifest.steps and not manifest.empty:
                self.job.warn(
                    f"{self.place.storage}/{relative}: the backup does not say what HEAD was; it is {_FALLBACK_HEAD}"
                )
            return
        put(target / "HEAD", content)

    def _check(
        self, target: Path, manifest: RepositoryManifest, spool: IO[bytes], head_oid: bytes | None, count: int
    ) -> None:
        """Have git walk everything that refs lead to, and list the refs. Where there are none, nothing can be wrong."""
        if not count and head_oid is None:
            return
        oids = _oids(spool, head_oid if not manifest.head_reference else None)
        command = self.git.on(target, self.account, "rev-list", "--objects", "--quiet", "--stdin")
        run(command, stdin=oids, cancel=self.cancel)
        spool.seek(0)
        listing = self.git.on(
            target, self.account, "for-each-ref", "--sort=refname", "--format=%(objectname) %(refname)"
        )
        same = _Same(cast("BinaryIO", spool))
        run(listing, stdout=same, cancel=self.cancel)
        if not same.equal or spool.read(1):
            raise ComponentError("git does not find in it the refs that the backup lists")

    def _hooks(self, target: Path, step: Step) -> None:
        if not self._has(step.custom_hooks_path):
            return
        # Not into the repository: whatever else is in the archive must not come to lie there.
        aside = Path(tempfile.mkdtemp(prefix="hooks-", dir=self.place.work))
        try:
            root = os.open(aside, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                with self._open(step.custom_hooks_path) as source, _about(step.custom_hooks_path):
                    extract(source, root, cancel=self.cancel)
            finally:
                os.close(root)
            names = sorted(os.listdir(aside))  # noqa: PTH208 - names alone
            if names and names != [HOOKS]:
                raise CorruptStreamError(f"{step.custom_hooks_path} has more than {HOOKS}: {', '.join(names[:5])}")
            # They are run as the owner of the storage, and belong to it whoever that was on another machine.
            self._give_all(aside)
            if names:
                system().rename(aside / HOOKS, target / HOOKS)
        finally:
            remove_tree(aside)

    def _settle(self, target: Path, place: Path) -> None:
        """Give everything git made the modes that the repository in its place has; the hooks have theirs."""
        mode = _MODE
        with suppress(FileNotFoundError):
            mode = stat.S_IMODE(place.stat().st_mode) & 0o777 | 0o700
        for directory, below, files in os.walk(target):
            if directory == str(target) and HOOKS in below:
                below.remove(HOOKS)
            for name in files:
                file = Path(directory, name)
                usual = 0o444 if file.suffix in {".pack", ".idx", ".rev"} else 0o644
                self._own(file)
                file.chmod(usual & mode)
            self._own(Path(directory))
            Path(directory).chmod(mode)

    def _own(self, path: Path) -> None:
        if self.account is not None:
            os.chown(path, self.account.uid, self.account.gid, follow_symlinks=False)


class _OpenLines:
    """Lines of a file that is closed behind; None has no lines."""

    def __init__(self, source: BinaryIO | None) -> None:
        import io

        self._source: BinaryIO = io.BytesIO() if source is None else source

    def __enter__(self) -> Lines:
        return Lines(self._source)

    def __exit__(self, *_: object) -> None:
        self._source.close()


class _about:  # noqa: N801 - reads as the statement that it is
    """Puts the name of a file before what is wrong with it."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, CorruptStreamError):
            raise CorruptStreamError(f"{self._path} {error.message}", hint=error.hint) from error
        if isinstance(error, StreamError):
            raise StreamError(f"{self._path}: {error.message}", hint=error.hint) from error


class _Same:
    """Compares what is written to it with a file."""

    def __init__(self, expected: BinaryIO) -> None:
        self._expected = expected
        self.equal = True

    def write(self, data: Buffer, /) -> None:
        self.equal = self.equal and self._expected.read(len(data)) == bytes(data)

    def finish(self) -> None:
        pass

    def abort(self) -> None:
        pass


def _chain(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from rest


def _oids(spool: IO[bytes], head: bytes | None) -> Iterator[bytes]:
    spool.seek(0)
    if head is not None:
        yield head + b"\n"
    while lines := spool.readlines(1 << 16):
        yield b"".join(line[: line.index(b" ")] + b"\n" for line in lines)
