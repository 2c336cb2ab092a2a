"""The archiver that reads repository storages of this machine with plain git, in the layout of gitaly-backup."""

from __future__ import annotations

from .archiver import GitArchiver

__all__ = ["GitArchiver"]
