"""The strategies that others import."""

from __future__ import annotations

import subprocess
import sys

from hypothesis import Phase, find, settings

from gitlab_backup import strategies

ONCE = settings(phases=[Phase.generate], max_examples=500, database=None)
"""Looks for one example, and does not look for a simpler one."""


def test_metadata_with_and_without_extra_fields_are_made() -> None:
    """A test that uses the strategy sees both what we write and what others may have added."""
    assert not find(strategies.metadata(), lambda value: not value.extra, settings=ONCE).extra
    assert find(strategies.metadata(), lambda value: bool(value.extra), settings=ONCE).extra


def test_ids_of_other_time_zones_are_made() -> None:
    """Ids whose date is not the one in UTC are among them."""
    found = find(strategies.backup_ids(), lambda each: each.date != each.created_at.date(), settings=ONCE)

    assert found.date != found.created_at.date()


def test_names_that_need_an_escape_are_made() -> None:
    """Checksum files with escaped names are among them."""
    assert find(strategies.checksums(), lambda value: value.to_bytes().startswith(b"\\"), settings=ONCE)


def test_without_hypothesis_the_error_says_what_to_install() -> None:
    """The strategies are an extra: who has not installed it is told its name."""
    code = "import sys; sys.modules['hypothesis'] = None; import gitlab_backup.strategies"
    ended = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)

    assert ended.returncode == 1
    assert "install gitlab-backup-core[hypothesis]" in ended.stderr.splitlines()[-1]
