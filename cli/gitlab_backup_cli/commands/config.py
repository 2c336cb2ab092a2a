"""`config show`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from gitlab_backup.components import COMPONENTS, Holder

from .. import documents
from ..output import write, write_json
from ..session import Session  # noqa: TC001 - the signature is looked at when the command starts
from ..text import table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gitlab_backup import Instance


def show(
    session: Session,
    *,
    json: Annotated[bool, typer.Option("--json", help="Print a JSON document.")] = False,
) -> None:
    """Show what was found of the installation, and where. Never a password.

    \b
    Example:
      gitlab-backup-cli config show
    """  # noqa: D301 - \b keeps the lines of the example apart
    instance = session.instance()
    if json:
        write_json(documents.configured(instance))
    else:
        write("\n".join(_tables(instance)))


def _tables(instance: Instance) -> Iterator[str]:
    yield table(
        ("setting", "value", "from"), [(setting.name, setting.value, setting.source) for setting in instance.settings]
    )
    yield table(
        ("database", "name", "host", "port", "user", "connects as"),
        [
            (each.name, each.dbname, each.host or "", str(each.port or ""), each.user or "", each.system_user or "")
            for each in instance.databases
        ],
    )
    yield table(
        ("storage", "path", "gitaly"),
        [(each.name, str(each.path or ""), each.gitaly_address or "") for each in instance.storages],
    )
    directories = [(each.id, instance.directory(each)) for each in COMPONENTS if each.holder is Holder.DIRECTORY]
    yield table(
        ("component", "directory", "left out"),
        [(name, str(directory.path), directory.left_out or "") for name, directory in directories],
    )
