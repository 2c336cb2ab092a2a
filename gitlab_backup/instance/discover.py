"""Finding the installation: which files describe it, and who said so."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from attrs import frozen

from ..errors import ConfigurationError
from .section import Problems, Section
from .yaml_file import read_mapping

if TYPE_CHECKING:
    from collections.abc import Mapping

CONTEXT_VARIABLES = ("GITLAB_BACKUP_CLI_CONFIG_FILE", "GITLAB_BACKUP_CONTEXT_FILE")
"""Environment variables that may name the context file: that of the Ruby tool, and that of newer Omnibus wrappers."""
ROOT_VARIABLE = "GITLAB_PATH"
OMNIBUS_ETC = Path("/opt/gitlab/etc")
CONTEXT_NAMES = ("gitlab-backup-context.yml", "gitlab-backup-cli-config.yml", "gitlab-backup-cli-context.yml")
"""What Omnibus calls the context file, newest first; the last name is only in its wrapper script."""
OMNIBUS_ROOT = Path("/opt/gitlab/embedded/service/gitlab-rails")

_HINT = "On Omnibus run gitlab-ctl reconfigure; otherwise name the installation with --gitlab-path or GITLAB_PATH."


@frozen(kw_only=True)
class Place:
    """An installation that was found: its kind, and the files that describe it, all paths absolute."""

    installation: str
    root: Path
    gitlab_config: Path
    database_config: Path
    rails_env: str
    sources: Mapping[str, str]
    """Who said so, by the name of the setting."""


def search(
    *, context: Path | None, gitlab_path: Path | None, environ: Mapping[str, str], etc: Path = OMNIBUS_ETC
) -> tuple[Path | None, Path | None, str]:
    """Return the context file or GitLab's root, whichever is found first, and who named it.

    The order: the options; the context file that the environment names, if it exists (Omnibus' wrapper names one
    that it never writes); `GITLAB_PATH`; the context files of Omnibus. A root that is given as an option goes with
    the context file that is given as one.

    Raises `ConfigurationError` where there is nothing, saying what was looked for.
    """
    if context is not None or gitlab_path is not None:
        return context, gitlab_path, "option"
    looked = []
    for variable in CONTEXT_VARIABLES:
        if name := environ.get(variable):
            if _is_there(Path(name)):
                return Path(name), None, f"environment variable {variable}"
            looked.append(f"{name} (from {variable}): does not exist")
        else:
            looked.append(f"environment variable {variable}: not set")
    if root := environ.get(ROOT_VARIABLE):
        return None, Path(root), f"environment variable {ROOT_VARIABLE}"
    looked.append(f"environment variable {ROOT_VARIABLE}: not set")
    for name in CONTEXT_NAMES:
        if _is_there(etc / name):
            return etc / name, None, "default"
        looked.append(f"{etc / name}: does not exist")
    raise ConfigurationError("\n  - ".join(("no GitLab installation was found:", *looked)), hint=_HINT)


def place(
    *,
    context: Path | None,
    gitlab_path: Path | None,
    gitlab_config: Path | None,
    database_config: Path | None,
    environ: Mapping[str, str],
    source: str = "option",
) -> Place:
    """Return the files of an installation that is named by its context file (Omnibus) or by its root (source).

    Relative paths of options are relative to the current directory, those in a context file to its directory. Raises
    `ConfigurationError` where the context file cannot be used, or where neither is given.
    """
    sources: dict[str, str] = {}
    if context is not None:
        installation, rails_env = "omnibus", "production"
        context = context.absolute()
        sources |= {"context": source, "installation": str(context), "rails_env": "default"}
        root = (gitlab_path or OMNIBUS_ROOT).absolute()
        sources["gitlab_path"] = "option" if gitlab_path is not None else "default"
        gitlab, database = _read_context(context, sources)
    elif gitlab_path is not None:
        installation = "source"
        rails_env, sources["rails_env"] = _rails_env(environ)
        root = gitlab_path.absolute()
        sources |= {"installation": source, "gitlab_path": source}
        gitlab, database = root / "config" / "gitlab.yml", root / "config" / "database.yml"
        sources |= {"gitlab_config": "default", "database_config": "default"}
    else:
        raise ConfigurationError("neither a context file nor GitLab's directory was named", hint=_HINT)
    if gitlab_config is not None:
        gitlab, sources["gitlab_config"] = gitlab_config.absolute(), "option"
    if database_config is not None:
        database, sources["database_config"] = database_config.absolute(), "option"
    return Place(
        installation=installation,
        root=root,
        gitlab_config=gitlab,
        database_config=database,
        rails_env=rails_env,
        sources=sources,
    )


def _is_there(path: Path) -> bool:
    try:
        path.stat()
    except FileNotFoundError:
        return False
    except (OSError, ValueError):
        return True  # Something is: reading it will say what is wrong with it.
    return True


def _rails_env(environ: Mapping[str, str]) -> tuple[str, str]:
    for variable in ("RAILS_ENV", "RACK_ENV"):
        if value := environ.get(variable):
            return value, f"environment variable {variable}"
    return "production", "default"


def _read_context(file: Path, sources: dict[str, str]) -> tuple[Path, Path]:
    top = Section(Problems(str(file)), (), read_mapping(file))
    _refuse_unknown(top, ("version", "installation_type", "gitlab", "database"))
    if top.values.get("version") is None:
        top.wrong("version", "is missing")
    elif top.integer("version", low=0) not in (1, None):
        top.wrong("version", "must be 1; a newer one needs a newer release of this tool")
    installation = top.string("installation_type")
    if installation != "omnibus":
        top.wrong("installation_type", "is missing" if installation is None else "must be omnibus")
    paths = []
    for key, setting in (("gitlab", "gitlab_config"), ("database", "database_config")):
        section = top.section(key)
        _refuse_unknown(section, ("config_path",))
        value = section.string("config_path")
        if value is None:
            section.wrong("config_path", "is missing")
        paths.append(file.parent / (value or ""))
        sources[setting] = section.source("config_path")
    top.problems.check("Omnibus writes this file: run gitlab-ctl reconfigure.")
    return paths[0], paths[1]


def _refuse_unknown(section: Section, known: tuple[str, ...]) -> None:
    for name in section.names():
        if name not in known:
            section.wrong(name, f"is not known here; known are {', '.join(known)}")
