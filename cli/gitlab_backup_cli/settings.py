"""Options from a file and from the environment: what is not given on the command line is looked for there.

A section of the file is a command, a key in it is one of its options: `[backup.all]`, `jobs = 2`. A variable is both:
`GITLAB_BACKUP_CLI_BACKUP_ALL_JOBS`. On top of the file are the options that can be given before the command.
"""

from __future__ import annotations

import os
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from attrs import define, field, frozen

from gitlab_backup.errors import ConfigurationError
from gitlab_backup.toml import parse

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import typer

FILE: Final = Path("/etc/gitlab/gitlab-backup-cli.toml")
"""Read where it exists, and no other file is named."""
_PREFIX: Final = "GITLAB_BACKUP_CLI"
_NOT_HERE: Final = frozenset({"help", "version", "config", "debug", "install_completion", "show_completion"})
"""Options that are about one run of the command."""
_LARGEST: Final = 1 << 20


@frozen
class Found:
    """A value that was found: of which option (`backup.all.jobs`), and where."""

    name: str
    value: str
    source: str


@define
class Settings:
    """What a file and the environment say."""

    file: Path | None = None
    found: tuple[Found, ...] = ()
    defaults: dict[str, Any] = field(factory=dict)
    """What the file says, by the names of commands and of their parameters."""


def name_variables(command: Any, path: tuple[str, ...] = ()) -> None:
    """Give each option of a command, and of those below it, the name of its variable."""
    for key, option in _options(command).items():
        option.envvar = _variable(path, key)
        # All are made in the same way: to name each in a help text would bury the rest.
        option.show_envvar = False
    for name, below in _commands(command).items():
        name_variables(below, (*path, name))


def variables(command: Any, path: tuple[str, ...]) -> dict[str, tuple[str, str]]:
    """Return, by the names of the parameters of a command, their keys in its section, and their variables."""
    return {option.name: (key, _variable(path, key)) for key, option in _options(command).items()}


def read(context: typer.Context, named: Path | None) -> Settings:
    """Read the file that is named, else the usual one, for the command of a context.

    Raises `ConfigurationError` with every key that does not exist, and every value that an option does not take.
    """
    file = named or FILE
    try:
        with file.open("rb") as opened:
            data = opened.read(_LARGEST + 1)
        document = parse(data) if len(data) <= _LARGEST else _too_large()
    except FileNotFoundError as error:
        if named is None:
            return Settings(None, tuple(_in_environment(context.command, ())))
        raise ConfigurationError(f"there is no file {file}", hint="--config names it.") from error
    except OSError as error:
        hint = "Change its rights, or read no such file: --config /dev/null."
        raise ConfigurationError(f"{file} cannot be read: {error.strerror}", hint=hint) from error
    except ValueError as error:
        raise ConfigurationError(f"{file} is not TOML: {error}", hint="See docs/how-to-configure.md.") from error
    reader = _Reader(context, str(file))
    defaults = reader.section(context.command, document, ())
    if reader.problems:
        message = "\n  - ".join((f"{file} cannot be used:", *reader.problems))
        raise ConfigurationError(message, hint="`gitlab-backup-cli COMMAND --help` has the options of a command.")
    variables = {each.name: each for each in _in_environment(context.command, ())}
    return Settings(file, tuple(({each.name: each for each in reader.found} | variables).values()), defaults)


@define
class _Reader:
    """Reads the sections, and notes what is wrong."""

    context: typer.Context
    file: str
    problems: list[str] = field(factory=list)
    found: list[Found] = field(factory=list)

    def section(self, command: Any, table: Mapping[str, Any], path: tuple[str, ...]) -> dict[str, Any]:
        """Return the values of a section and those below it, by the names of parameters."""
        options, commands = _options(command), _commands(command)
        values: dict[str, Any] = {}
        for key, value in table.items():
            name, place = key.replace("-", "_"), ".".join((*path, key))
            if key in commands:
                if isinstance(value, dict):
                    values[key] = self.section(commands[key], value, (*path, key))
                else:
                    self.problems.append(f"{place} is a section: [{place}]")
            elif name in options:
                given = [value] if options[name].multiple and isinstance(value, str) else value
                if self._takes(options[name], given, place):
                    values[options[name].name] = given
                    self.found.append(Found(".".join((*path, name)), _text(value), f"{self.file}: {place}"))
            else:
                near = get_close_matches(name, [*options, *commands], n=1)
                self.problems.append(f"{place} does not exist" + (f"; do you mean {near[0]}?" if near else ""))
        return values

    def _takes(self, option: Any, value: Any, place: str) -> bool:
        if option.is_flag != isinstance(value, bool):
            self.problems.append(f"{place} must {'be' if option.is_flag else 'not be'} true or false")
            return False
        from typer import TyperException

        from . import usage

        try:
            option.process_value(self.context, value)
        except TyperException as error:
            self.problems.append(f"{place} {usage.reason(error)}")
            return False
        return True


def _in_environment(command: Any, path: tuple[str, ...]) -> Iterator[Found]:
    for key in _options(command):
        variable = _variable(path, key)
        if value := os.environ.get(variable):
            yield Found(".".join((*path, key)), value, f"environment variable {variable}")
    for name, below in _commands(command).items():
        yield from _in_environment(below, (*path, name))


def _commands(command: Any) -> Mapping[str, Any]:
    return getattr(command, "commands", {})


def _options(command: Any) -> dict[str, Any]:
    """Return the options of a command by their names on the command line."""
    found = {}
    for option in command.params:
        long = [each for each in option.opts if each.startswith("--")]
        if long and (key := long[0][2:].replace("-", "_")) not in _NOT_HERE:
            found[key] = option
    return found


def _variable(path: tuple[str, ...], key: str) -> str:
    return "_".join((_PREFIX, *path, key)).upper().replace("-", "_")


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def _too_large() -> dict[str, Any]:
    raise ValueError("it is too large")
