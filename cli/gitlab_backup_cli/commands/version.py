"""`version`."""

from __future__ import annotations

from gitlab_backup.version import __version__

from ..output import write


def text() -> str:
    """Return what the command prints."""
    return f"gitlab-backup-cli {__version__}\n"


def version() -> None:
    """Print the version.

    \b
    Example:
      gitlab-backup-cli version
    """  # noqa: D301 - \b keeps the lines of the example apart
    write(text())
