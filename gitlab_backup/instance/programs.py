"""Finding programs, and the environment that they run in."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ProgramNotFoundError

if TYPE_CHECKING:
    from collections.abc import Mapping

OMNIBUS_PROGRAMS = "/opt/gitlab/embedded/bin"
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_DEBIAN_POSTGRESQL = Path("/usr/lib/postgresql")
_POSTGRESQL = frozenset(
    {"createdb", "dropdb", "initdb", "pg_ctl", "pg_dump", "pg_isready", "pg_restore", "postgres", "psql"}
)
_HINTS = {
    "git": "Install git (Debian: apt-get install git).",
    "tar": "Install GNU tar (Debian: apt-get install tar).",
    "gitaly-backup": "It comes with GitLab; set backup.gitaly_backup_path in gitlab.yml to it.",
}


def search_path(installation: str, environ: Mapping[str, str]) -> str:
    """Return where programs are looked for.

    Of `PATH`, relative entries are dropped, as this runs as root, in directories that others may write to; and so are
    directories that everybody may write to: whoever likes could put a program there.
    """
    directories = [OMNIBUS_PROGRAMS] if installation == "omnibus" else []
    entries = environ.get("PATH", "").split(os.pathsep)
    own = [entry for entry in entries if entry.startswith("/") and not _is_everybodys(entry)]
    directories += own or DEFAULT_PATH.split(os.pathsep)
    return os.pathsep.join(dict.fromkeys(directories))


def _is_everybodys(directory: str) -> bool:
    try:
        return bool(os.stat(directory).st_mode & stat.S_IWOTH)  # noqa: PTH116 - an entry that is no path is kept as it is
    except (OSError, ValueError):
        return False


def find(name: str, path: str, *, preferred: Path | None = None) -> str:
    """Return the path of a program: `preferred`, or the first one in `path`, or PostgreSQL's own in Debian's place.

    Raises `ProgramNotFoundError`.
    """
    looked = [str(preferred.parent)] if preferred is not None else []
    if preferred is not None and os.access(preferred, os.X_OK) and preferred.is_file():
        return str(preferred)
    looked += path.split(os.pathsep)
    if found := shutil.which(name, path=path):
        return found
    if name in _POSTGRESQL:
        # Debian keeps the programs of every major version apart, and only wrappers of the client's ones in PATH.
        versions = sorted(_DEBIAN_POSTGRESQL.glob("*/bin"), key=_version, reverse=True)
        looked += [str(directory) for directory in versions] or [f"{_DEBIAN_POSTGRESQL}/*/bin"]
        if found := shutil.which(name, path=os.pathsep.join(map(str, versions))):
            return found
        hint = "Install PostgreSQL's client programs, not older than the server (Debian: postgresql-client)."
    else:
        hint = _HINTS.get(name, "Install it, or add its directory to PATH.")
    raise ProgramNotFoundError(f"the program {name} was not found in {', '.join(looked)}", hint=hint)


def environment(path: str, user: str) -> dict[str, str]:
    """Return the whole environment of a child process.

    `LC_ALL=C` makes programs speak English, so that their messages can be recognised; `TZ=UTC` makes their
    times comparable.
    """
    try:
        home = pwd.getpwnam(user).pw_dir
    except KeyError:
        home = "/"
    return {"PATH": path, "HOME": home, "LC_ALL": "C", "TZ": "UTC"}


_CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR")
"""OpenSSL's variables for the certificates to trust: a file, and a directory."""
_OMNIBUS_CERTIFICATES = Path("/opt/gitlab/embedded/ssl")


def certificates(environ: Mapping[str, str]) -> dict[str, str]:
    """Return what an environment says about the certificates to trust."""
    return {name: environ[name] for name in _CERTIFICATES if environ.get(name)}


def usual_certificates(installation: str) -> dict[str, str]:
    """Return the places of trusted certificates of the installation's OpenSSL, in its variables.

    Only those that exist: a program in Go, told of a place, looks at no other.
    """
    if installation == "omnibus":
        places = (_OMNIBUS_CERTIFICATES / "cert.pem", _OMNIBUS_CERTIFICATES / "certs")
    else:
        import ssl

        paths = ssl.get_default_verify_paths()
        places = (Path(paths.openssl_cafile), Path(paths.openssl_capath))
    return {name: str(place) for name, place in zip(_CERTIFICATES, places, strict=True) if place.exists()}


def _version(directory: Path) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", directory.parent.name))
