"""What must hold before a restore changes anything, as far as it is not one component's own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import DamagedError, RefusedError
from ..streams.files import free_bytes

if TYPE_CHECKING:
    from pathlib import Path

    from ..archivers.base import RestorePlan
    from ..instance import Instance
    from ..metadata import Metadata


def damaged(path: Path, problems: list[str]) -> DamagedError:
    """Return the error that names the first of many problems of a backup."""
    shown = "".join(f"\n  - {problem}" for problem in problems[:10])
    more = f"\n  … and {len(problems) - 10} more" if len(problems) > 10 else ""  # noqa: PLR2004
    return DamagedError(
        f"the backup {path} is damaged; nothing was changed{shown}{more}",
        hint="Restore another backup, or what is whole of this one with --only and --skip.",
    )


def check_version(metadata: Metadata, instance: Instance, *, force: bool) -> list[str]:
    """Compare the version of GitLab with that of the backup; with `force`, return what to say of a difference.

    Raises `RefusedError` where they differ.
    """
    made, installed = metadata.gitlab_version, instance.gitlab_version
    if made == installed:
        return []
    editions = (
        "Enterprise" if made.endswith("-ee") else "Community",
        "Enterprise" if installed.endswith("-ee") else "Community",
    )
    what = f"the backup is of GitLab {made}, installed is {installed}"
    if editions[0] != editions[1]:
        what += f" (another edition: {editions[0]} in the backup, {editions[1]} here)"
    if not force:
        raise RefusedError(
            what, hint=f"Install GitLab {made} first. --force-version restores all the same, at your own risk."
        )
    return [f"{what}; restored all the same (--force-version)"]


def check_space(plans: dict[str, RestorePlan]) -> None:
    """Raise `RefusedError` where what is built beside the old does not fit, all components together."""
    needed: dict[int, tuple[Path, int]] = {}
    for plan in plans.values():
        for directory, size in plan.space:
            device = directory.stat().st_dev
            needed[device] = (directory, needed.get(device, (directory, 0))[1] + size)
    for directory, size in needed.values():
        if (free := free_bytes(directory)) < size:
            raise RefusedError(
                f"not enough space on the file system of {directory}: {size} bytes are needed, {free} are free",
                hint="The new is built beside the old. Make room, or restore fewer components at a time with --only.",
            )
