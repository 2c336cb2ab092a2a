"""The archiver of the configuration and the secrets: one tar archive, which is restored beside, never over them."""

from __future__ import annotations

from .archiver import ConfigArchiver

__all__ = ["ConfigArchiver"]
