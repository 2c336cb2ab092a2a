"""What gitaly-backup before 18.3 makes of several steps.

Where it cannot set the refs by the list of the last step, it fetches the bundles one after the other and removes
nothing. So a ref that was deleted between two steps comes back, and one that is in no bundle, because it leads to an
object that an earlier one has, is lost. 18.3 and later put the refs right afterwards (`internal/backup/backup.go`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, BinaryIO

from ...errors import CorruptStreamError
from ..git.bundle import BundleReader
from ..git.layout import read_refs, shown
from ..git.lines import Lines

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..git.layout import RepositoryManifest


def loss_when_fetched(manifest: RepositoryManifest, open_file: Callable[[str], BinaryIO]) -> str | None:
    """Return which ref would not be restored as it was, and how; None where all would be.

    `open_file` takes a path of the manifest. Raises `CorruptStreamError` where a list or a bundle cannot be understood,
    and what `open_file` raises.
    """
    if len(manifest.steps) == 1:
        return None
    fetched: dict[bytes, bytes] = {}
    refs: dict[bytes, bytes] = {}
    for step in manifest.steps:
        with open_file(step.ref_path) as file:
            refs = {name: oid for oid, name in read_refs(Lines(file)) if name != b"HEAD"}
        if refs:
            with open_file(step.bundle_path) as file:
                reader = BundleReader(Lines(file))
                try:
                    reader.start()
                    fetched.update((name, oid) for oid, name in reader.refs() if name != b"HEAD")
                except CorruptStreamError as error:
                    raise CorruptStreamError(f"{step.bundle_path} {error.message}") from None
    for name in sorted(refs.keys() | fetched.keys()):
        if name not in refs:
            return f"{shown(name)}, which was deleted, would come back"
        if fetched.get(name) != refs[name]:
            return f"{shown(name)} would {'be lost' if name not in fetched else 'lead where it led before'}"
    return None
