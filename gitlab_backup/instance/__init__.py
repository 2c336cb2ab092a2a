"""Everything that knows GitLab's configuration and database."""

from __future__ import annotations

from .model import Database, Directory, Instance, Setting, Storage

__all__ = ["Database", "Directory", "Instance", "Setting", "Storage"]
