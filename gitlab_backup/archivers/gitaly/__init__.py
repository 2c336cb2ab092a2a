"""The archiver that has Gitaly itself read and write its repositories, by its program gitaly-backup."""

from __future__ import annotations

from .archiver import GitalyArchiver

__all__ = ["GitalyArchiver"]
