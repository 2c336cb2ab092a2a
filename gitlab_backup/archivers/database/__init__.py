"""Backs up PostgreSQL databases with pg_dump, all from snapshots that were taken before anything else is read."""

from __future__ import annotations

from .archiver import DatabaseArchiver
from .scanner import DumpScanner

__all__ = ["DatabaseArchiver", "DumpScanner"]
