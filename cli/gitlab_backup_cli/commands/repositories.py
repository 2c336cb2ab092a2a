"""The options about repositories, which `backup all` and `restore all` have in common."""

from __future__ import annotations

from typing import Annotated

import typer

from .. import completion
from ..help import REPOSITORIES

Storages = Annotated[
    list[str] | None,
    typer.Option(
        "--repository-storage",
        metavar="NAME",
        help="Of the repositories, only those on this storage. Repeat it, or give a list: a,b.",
        show_default=False,
        rich_help_panel=REPOSITORIES,
    ),
]
Paths = Annotated[
    list[str] | None,
    typer.Option(
        "--repository-path",
        metavar="GROUP_OR_PROJECT",
        help="Of the repositories, only those of this project, or this group and all below it. Likewise.",
        show_default=False,
        rich_help_panel=REPOSITORIES,
    ),
]
SkipPaths = Annotated[
    list[str] | None,
    typer.Option(
        "--skip-repository-path",
        metavar="GROUP_OR_PROJECT",
        help="None of the repositories of this project, or this group and all below it. Likewise.",
        show_default=False,
        rich_help_panel=REPOSITORIES,
    ),
]
Archiver = Annotated[
    str | None,
    typer.Option(
        "--repositories-archiver",
        metavar="gitaly|git",
        autocompletion=lambda: ("gitaly", "git"),
        help="What moves repositories. Default: gitaly, where a Gitaly is configured and gitaly-backup is found.",
        show_default=False,
        rich_help_panel=REPOSITORIES,
    ),
]
ServerSide = Annotated[
    bool,
    typer.Option(
        "--repositories-server-side",
        help="Each Gitaly has the repositories in its own object storage; they are not in the backup.",
        rich_help_panel=REPOSITORIES,
    ),
]

Incremental = Annotated[
    bool,
    typer.Option(
        "--incremental",
        help="Back up repositories as increments on an earlier backup; all else in full.",
        rich_help_panel=REPOSITORIES,
    ),
]
Base = Annotated[
    str | None,
    typer.Option(
        "--base",
        metavar="BACKUP_ID",
        help="The backup that increments build on. Default: the newest that can serve.",
        autocompletion=completion.backups,
        rich_help_panel=REPOSITORIES,
    ),
]
