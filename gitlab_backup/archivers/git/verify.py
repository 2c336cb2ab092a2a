"""Reads the repositories of a backup to their ends, and compares what must agree. No git is needed.

Two kinds of backups are told apart. In ours (there is a record of what was done) the bundle of a first step lists
exactly the refs of the list beside it, and every file belongs to a manifest. In those of gitaly-backup pushes between
the two readings make them differ, an increment without news may have left files that no manifest names, and older
layouts have files of which no manifest tells; none of that is damage.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final, TypeVar

from attrs import define, field

from ...errors import CorruptStreamError, StreamError
from ...streams.tar.check import check_name
from ...streams.tar.reader import TarReader
from .bundle import BundleReader
from .layout import LATEST, MANIFESTS, OBJECT_FORMATS, RepositoryManifest, read_refs, shown
from .lines import Lines
from .quick import HOOKS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..base import VerifyJob
    from .layout import Step

_Item = TypeVar("_Item")

_LARGEST_MANIFEST: Final = 16 << 20
"""Bytes; a step takes less than a kibibyte."""


def verify_repositories(job: VerifyJob) -> None:
    """Report, through `job.damaged`, whatever is wrong with the repositories of a backup."""
    names = job.names(job.component.destination)
    checked = _Check(job, frozenset(names))
    repositories = _by_directory(name for name in names if checked.is_manifest(name))
    with ThreadPoolExecutor(max(1, job.jobs), "verify") as threads:
        for result in [threads.submit(checked.repository, place, files) for place, files in repositories]:
            result.result()
    checked.as_recorded(len(repositories))


def _by_directory(names: Iterator[str]) -> list[tuple[str, list[str]]]:
    directories: dict[str, list[str]] = {}
    for name in names:
        directory, _, file = name.rpartition("/")
        directories.setdefault(directory, []).append(file)
    return list(directories.items())


@define
class _Check:
    job: VerifyJob
    names: frozenset[str]
    claimed: set[str] = field(factory=set)

    @property
    def root(self) -> str:
        return self.job.component.destination

    @property
    def ours(self) -> bool:
        """Whether this tool made the backup."""
        return self.job.details is not None

    def is_manifest(self, name: str) -> bool:
        return name.startswith(f"{self.root}/{MANIFESTS}/") and name.endswith(".toml")

    def as_recorded(self, repositories: int) -> None:
        """Compare with what was recorded when the backup was made."""
        if self.job.details is None:
            return
        expected = self.job.details.get("repositories")
        if isinstance(expected, int) and expected != repositories:
            self.job.damaged(
                f"{self.root}/{MANIFESTS}", f"has manifests of {repositories} repositories, where {expected} were made"
            )
        for name in sorted(self.names - self.claimed):
            if not self.is_manifest(name):
                self.job.damaged(name, "belongs to no manifest of a repository")

    def repository(self, place: str, files: list[str]) -> None:
        """Check one repository: the manifests in the directory `place`."""
        read: dict[str, bytes] = {}
        for file in files:
            self.job.cancel.check()
            try:
                with self.job.open_file(f"{place}/{file}") as source:
                    read[file] = source.read(_LARGEST_MANIFEST + 1)
            except StreamError as error:
                self.job.damaged(f"{place}/{file}", error.message)
        latest = read.pop(LATEST, None)
        if LATEST not in files:
            self.job.damaged(f"{place}/{LATEST}", "is missing")
        elif latest is not None and latest not in read.values():
            self.job.damaged(f"{place}/{LATEST}", "is not a copy of any manifest beside it")
        if not read and files == [LATEST]:
            self.job.damaged(f"{place}/{LATEST}", "is alone: the manifest that it is a copy of is missing")
        done: set[Step] = set()
        for file, content in read.items():
            self._manifest(f"{place}/{file}", content, done)

    def _manifest(self, path: str, content: bytes, done: set[Step]) -> None:
        if len(content) > _LARGEST_MANIFEST:
            self.job.damaged(path, "is far too large for a manifest of a repository")
            return
        try:
            manifest = RepositoryManifest.from_toml(content)
        except CorruptStreamError as error:
            self.job.damaged(path, error.message)
            return
        last = manifest.steps[-1]
        for number, step in enumerate(manifest.steps, start=1):
            self._claim(step)
            # The full backup is a step of every increment upon it, and need not be read for each.
            if step not in done and not manifest.non_existent:
                self._step(path, manifest, step, number)
                done.add(step)
        self._agrees(path, manifest, last)

    def _claim(self, step: Step) -> None:
        for name in (step.bundle_path, step.ref_path, step.custom_hooks_path):
            self.claimed.add(f"{self.root}/{name}")
            self.claimed.add(f"{self.root}/{name}.attrs")  # beside every file that gitaly-backup 17.0 writes

    def _agrees(self, path: str, manifest: RepositoryManifest, step: Step) -> None:
        """Compare what a manifest says of its repository with which files there are."""
        present = [
            name
            for name in (step.bundle_path, step.ref_path, step.custom_hooks_path)
            if f"{self.root}/{name}" in self.names
        ]
        if manifest.non_existent and present:
            self.job.damaged(path, f"says that the repository does not exist, but there is {present[0]}")
        elif self.ours and manifest.empty and step.bundle_path in present:
            # gitaly-backup leaves the mark on an increment upon an empty repository (up to 17.6 at least).
            self.job.damaged(path, f"says that the repository is empty, but there is {step.bundle_path}")

    def _step(self, path: str, manifest: RepositoryManifest, step: Step, number: int) -> None:
        refs, bundle, hooks = (
            f"{self.root}/{name}" for name in (step.ref_path, step.bundle_path, step.custom_hooks_path)
        )
        if hooks in self.names:
            self._hooks(hooks)
        if refs not in self.names:
            self.job.damaged(refs, f"is missing: {path} names it")
            return
        with ExitStack() as opened:
            sides = []
            for name in (refs, bundle):
                try:
                    source = opened.enter_context(self.job.open_file(name)) if name in self.names else None
                except StreamError as error:
                    self.job.damaged(name, error.message)
                    return
                sides.append(source)
            if sides[0] is not None:
                pair = _Pair(self.job, refs, bundle, manifest, first=number == 1)
                pair.check(Lines(sides[0]), None if sides[1] is None else Lines(sides[1]))

    def _hooks(self, path: str) -> None:
        try:
            with self.job.open_file(path) as source:
                for member in TarReader(source):
                    self.job.cancel.check()
                    problem = check_name(member)
                    if problem is None and member.name.split(b"/")[0] != HOOKS.encode():
                        problem = f"it is not below {HOOKS}/"
                    if problem is not None:
                        self.job.damaged(path, f"member {member.display_name!r}, at byte {member.offset}: {problem}")
        except StreamError as error:
            self.job.damaged(path, error.message)


@define
class _Pair:
    """The list of refs and the bundle of one step, read side by side: neither is ever held in memory."""

    job: VerifyJob
    refs_path: str
    bundle_path: str
    manifest: RepositoryManifest
    first: bool = field(kw_only=True)
    broken: bool = False

    def check(self, refs: Lines, bundle: Lines | None) -> None:
        """Read both to their ends."""
        listed = _head_last(self._tell(self.refs_path, self._refs(refs)))
        if bundle is None:
            if sum(1 for _ in listed):
                self.job.damaged(self.bundle_path, f"is missing, but there are refs in {self.refs_path}")
            return
        reader = BundleReader(bundle)
        matches = bundled = 0
        difference = None
        for name, left, right in _side_by_side(listed, self._tell(self.bundle_path, self._header(reader))):
            bundled += right is not None
            matches += left == right
            if difference is None and left != right and (self.first or right is not None):
                difference = f"{shown(name)} is {_or_absent(left)} in {self.refs_path}, but {_or_absent(right)} here"
        if self.broken:
            return
        if self.job.details is None:
            # Made by gitaly-backup, which reads refs and objects at different moments, but of one repository.
            strange = self.first and bundled and refs.number and not matches
            difference = "has none of its refs in common with the list beside it" if strange else None
        if difference is not None:
            self.job.damaged(self.bundle_path, difference)
        for _ in self._tell(self.bundle_path, self._pack(reader, bundled)):
            pass

    def _refs(self, lines: Lines) -> Iterator[tuple[bytes, bytes]]:
        length = OBJECT_FORMATS[self.manifest.object_format]
        for oid, name in read_refs(lines):
            if len(oid) != length:
                raise CorruptStreamError(
                    f"line {lines.number} has an object id that is not of the format in the manifest"
                )
            yield oid, name

    def _header(self, reader: BundleReader) -> Iterator[tuple[bytes, bytes]]:
        reader.start()
        if reader.object_format != self.manifest.object_format:
            raise CorruptStreamError(
                f"is of the object format {reader.object_format}, the repository of {self.manifest.object_format}"
            )
        if self.first and reader.prerequisites:
            raise CorruptStreamError(f"needs {reader.prerequisites} commits that no bundle before it has")
        yield from reader.refs()

    def _pack(self, reader: BundleReader, bundled: int) -> Iterator[None]:
        pack = reader.pack(self.job.cancel.check)
        if bundled and not pack.size:
            raise CorruptStreamError("ends after its header: the pack is missing")
        if bundled and self.first and not pack.objects:
            raise CorruptStreamError("has a pack without objects")
        yield

    def _tell(self, path: str, items: Iterator[_Item]) -> Iterator[_Item]:
        """Yield `items` until they end, or are found to be damaged, which is reported."""
        try:
            yield from items
        except StreamError as error:
            self.broken = True
            self.job.damaged(path, error.message)


def _head_last(refs: Iterator[tuple[bytes, bytes]]) -> Iterator[tuple[bytes, bytes]]:
    head = None
    for ref in refs:
        if ref[1] == b"HEAD":
            head = ref
        else:
            yield ref
    if head is not None:
        yield head


def _side_by_side(
    left: Iterator[tuple[bytes, bytes]], right: Iterator[tuple[bytes, bytes]]
) -> Iterator[tuple[bytes, bytes | None, bytes | None]]:
    """Yield every name of two lists that are sorted by name, HEAD last, with its object id in each of them."""
    one, other = next(left, None), next(right, None)
    while one is not None or other is not None:
        if other is None or (one is not None and _order(one) < _order(other)):
            assert one is not None  # noqa: S101 - for the type checker
            yield one[1], one[0], None
            one = next(left, None)
        elif one is None or _order(other) < _order(one):
            yield other[1], None, other[0]
            other = next(right, None)
        else:
            yield one[1], one[0], other[0]
            one, other = next(left, None), next(right, None)


def _order(ref: tuple[bytes, bytes]) -> tuple[bool, bytes]:
    return ref[1] == b"HEAD", ref[1]


def _or_absent(oid: bytes | None) -> str:
    return "absent" if oid is None else oid.decode()
