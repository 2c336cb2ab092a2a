"""Tar archives as streams: a tree into an archive, an archive into its members."""

from __future__ import annotations

from .check import Passage, check_name
from .extract import MEMBER_SPACE, Extracted, ExtractLimits, extract
from .paths import write_paths
from .reader import Kind, Limits, Member, TarReader
from .report import Changed, TarReport, Unreadable
from .tree import write_tree
from .writer import TarWriter

__all__ = [
    "MEMBER_SPACE",
    "Changed",
    "ExtractLimits",
    "Extracted",
    "Kind",
    "Limits",
    "Member",
    "Passage",
    "TarReader",
    "TarReport",
    "TarWriter",
    "Unreadable",
    "check_name",
    "extract",
    "write_paths",
    "write_tree",
]
