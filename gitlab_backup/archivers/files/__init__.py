"""The archiver of directories: a tar archive each."""

from __future__ import annotations

from .archiver import FilesArchiver

__all__ = ["FilesArchiver"]
