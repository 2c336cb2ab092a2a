"""Where the configuration and the secrets of an installation are."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from .discover import Place

OMNIBUS_CONFIGURATION: Final = Path("/etc/gitlab")
_HOST_KEYS: Final = (Path("/etc/ssh"), "ssh_host_*")
"""Of the machine's SSH server, which is GitLab's, too: with other keys, all who use it are warned of an attack."""
_OF_SOURCE: Final = (
    "config/gitlab.yml",
    "config/secrets.yml",
    "config/database.yml",
    "config/cable.yml",
    "config/mail_room.yml",
    "config/puma.rb",
    "config/redis*.yml",
    "config/resque.yml",
    "config/session_store.yml",
    "config/initializers/smtp_settings.rb",
    ".gitlab_*_secret",
)
"""From GitLab's documentation, "Self-compiled installation", and the `.gitignore` of its source: what one writes."""


def configuration(place: Place) -> tuple[Path, ...]:
    """Return the files, and the directories with all below them, that an installation is configured by.

    Not all of them need to exist.
    """
    if place.installation == "omnibus":
        found = [OMNIBUS_CONFIGURATION]
    else:
        found = [path for pattern in _OF_SOURCE for path in sorted(place.root.glob(pattern))]
        found += [place.gitlab_config, place.database_config]
    directory, pattern = _HOST_KEYS
    return tuple(dict.fromkeys((*found, *sorted(directory.glob(pattern)))))
