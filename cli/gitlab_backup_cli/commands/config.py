"""`config show`."""

from __future__ import annotations

import sys
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer
from attrs import evolve

from gitlab_backup.components import COMPONENTS, Holder

from .. import documents
from ..output import columns, write, write_json
from ..session import Session  # noqa: TC001 - the signature is looked at when the command starts
from ..text import table

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from gitlab_backup import Instance
    from gitlab_backup.instance.model import Setting

    from ..settings import Found


def show(
    session: Session,
    *,
    json: Annotated[bool, typer.Option("--json", help="Print a JSON document.")] = False,
) -> None:
    """Show the configuration that was found.

    That of the installation, and options that are in a file or in the environment, each with the place that it comes
    from. Never a password.

    \b
    Example:
      gitlab-backup-cli config show
    """  # noqa: D301 - \b keeps the lines of the example apart
    instance = session.instance()
    options = session.settings.found
    instance = evolve(instance, settings=tuple(_traced(setting, session) for setting in instance.settings))
    if json:
        write_json(documents.configured(instance, options))
    else:
        write("\n".join(_tables(instance, options, columns(sys.stdout))))


def _traced(setting: Setting, session: Session) -> Setting:
    """Return a setting whose source, if it is an option, is where that was given."""
    # An installation is named by its context file, and the key of the backup path is `backup.path`.
    name = "context" if setting.name == "installation" else setting.name.replace(".", "_")
    source = session.sources.get(name, setting.source)
    return evolve(setting, source=source) if setting.source == "option" else setting


def _tables(instance: Instance, options: Sequence[Found], width: int | None) -> Iterator[str]:
    shown = partial(table, width=width)
    yield shown(
        ("setting", "value", "from"), [(setting.name, setting.value, setting.source) for setting in instance.settings]
    )
    if options:
        yield shown(("option", "value", "from"), [(each.name, each.value, each.source) for each in options])
    yield shown(
        ("database", "name", "host", "port", "user", "connects as"),
        [
            (each.name, each.dbname, each.host or "", str(each.port or ""), each.user or "", each.system_user or "")
            for each in instance.databases
        ],
    )
    yield shown(
        ("storage", "path", "gitaly"),
        [(each.name, str(each.path or ""), each.gitaly_address or "") for each in instance.storages],
    )
    directories = [(each.id, instance.directory(each)) for each in COMPONENTS if each.holder is Holder.DIRECTORY]
    yield shown(
        ("component", "directory", "left out"),
        [(name, str(directory.path), directory.left_out or "") for name, directory in directories],
    )
