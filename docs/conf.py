"""Configuration of Sphinx."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from gitlab_backup.version import __version__

project = "gitlab-backup"
author = "the authors of gitlab-backup"
copyright = author
release = version = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "reference.pages"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"{project} {release}"

default_role = "literal"  # docstrings write code between single backquotes
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_class_signature = "separated"
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
