"""What a command works on: the installation and the backup path that the options name."""

from __future__ import annotations

import functools
import inspect
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypedDict, cast

import typer
from attrs import define, field

from gitlab_backup.errors import CancelledError
from gitlab_backup.store import BackupStore
from gitlab_backup.streams.cancel import MAX_SILENCE

from .help import INSTALLATION
from .settings import Settings
from .signals import Stopped

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from gitlab_backup import Backup, Instance
    from gitlab_backup.streams.cancel import Cancellation

    from .signals import Signals

_PANEL = {
    "context": ("FILE", "The context file of an Omnibus installation."),
    "gitlab_path": ("DIRECTORY", "GitLab's own directory, the one with VERSION in it."),
    "gitlab_config": ("FILE", "GitLab's gitlab.yml, in place of the installation's own."),
    "database_config": ("FILE", "GitLab's database.yml, likewise."),
    "backup_path": ("DIRECTORY", "Where the backups are. Default: `backup.path` of gitlab.yml."),
}

_RANKS = ("DEFAULT_MAP", "ENVIRONMENT", "COMMANDLINE")
"""Where an option may have been given, in the words of typer; the last wins."""


class _Place(TypedDict, total=False):
    context: Path
    gitlab_path: Path
    gitlab_config: Path


class _Overrides(_Place, total=False):
    database_config: Path
    backup_path: Path


@define
class Session:
    """One run of the command."""

    signals: Signals
    left: str | None = None
    """What a cancelled operation leaves, for its user. The operation may change it as it goes on."""
    max_silence: float | None = MAX_SILENCE
    """How many seconds programs may be silent; None: as long as they like."""
    settings: Settings = field(factory=Settings)
    """What a file and the environment say about options."""
    sources: dict[str, str] = field(factory=dict)
    """Where the options that name the installation were given."""
    _overrides: _Overrides = field(factory=_Overrides)
    _ranks: dict[str, int] = field(factory=dict)

    def override(self, context: typer.Context, options: dict[str, Path | None]) -> None:
        """Take the options that name the installation, as a context has them.

        One on the command line wins over one in the environment, and that over one in a file; of two in the same
        place, the one that belongs to the command.
        """
        for name, value in options.items():
            source = context.get_parameter_source(name)
            rank = _RANKS.index(source.name) if source is not None and source.name in _RANKS else -1
            if value is not None and rank >= self._ranks.get(name, -1):
                self._ranks[name] = rank
                self._overrides.update(cast("_Overrides", {name: value}))
                (option,) = (each for each in context.command.params if each.name == name)
                path = context.command_path.split()[1:]
                self.sources[name] = {
                    "ENVIRONMENT": f"environment variable {option.envvar}",
                    "DEFAULT_MAP": f"{self.settings.file}: {'.'.join([*path, name])}",
                }.get(_RANKS[rank], "option")

    def instance(self) -> Instance:
        """Return the installation. Raises `ConfigurationError`."""
        from gitlab_backup import Instance

        with self.signals.starting() as cancel:
            return Instance.discover(**self._overrides, cancel=cancel)

    def store(self) -> BackupStore:
        """Return the backup path. Where an option names it, no installation is needed: backups can be read anywhere."""
        return self.named_store() or BackupStore(self.instance().backup_path)

    def named_store(self) -> BackupStore | None:
        """Return the backup path that an option names; None without one."""
        path = self._overrides.get("backup_path")
        return None if path is None else BackupStore(path.absolute())

    def quick_store(self) -> BackupStore:
        """Return the backup path of the installation, having read nothing else of it. Raises `ConfigurationError`."""
        from gitlab_backup import Instance

        given = {name: value for name, value in self._overrides.items() if name in _Place.__annotations__}
        return BackupStore(Instance.discover_backup_path(**cast("_Place", given)))

    def backup(self, backup_id: str) -> Backup:
        """Return the backup of that id, or the latest. Raises `BackupNotFoundError`."""
        from gitlab_backup import Backup

        return Backup.open(self.store(), backup_id)

    @contextmanager
    def cancelling(self, *, left: str | None = None) -> Iterator[Cancellation]:
        """Have signals cancel what the block does; `left` tells the user what is left of it then."""
        self.left = left
        cancel = self.signals.operation(max_silence=self.max_silence)
        try:
            yield cancel
        except CancelledError as error:
            error.hint = error.hint or self.left
            raise
        except Stopped as stopped:
            # While it waited for a person.
            cancelled = CancelledError(status=stopped.status)
            cancelled.hint = self.left
            raise cancelled from None


def installation_options() -> list[inspect.Parameter]:
    """Return the options that name the installation, as parameters of a command."""
    return [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=Annotated[
                Path | None,
                typer.Option(metavar=metavar, help=text, show_default=False, rich_help_panel=INSTALLATION),
            ],
        )
        for name, (metavar, text) in _PANEL.items()
    ]


def on_installation(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command, whose first parameter is the `Session`, the options that name the installation.

    So they can be typed before the command and behind it.
    """

    @functools.wraps(command)
    def wrapper(ctx: typer.Context, **values: Any) -> None:
        session: Session = ctx.obj
        session.override(ctx, {name: values.pop(name) for name in _PANEL})
        command(session, **values)

    signature = inspect.signature(command, eval_str=True)
    own = [
        parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in list(signature.parameters.values())[1:]
    ]
    context = inspect.Parameter("ctx", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)
    parameters = [context, *own, *installation_options()]
    wrapper.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    wrapper.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return wrapper
