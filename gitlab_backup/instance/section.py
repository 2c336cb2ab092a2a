"""A section of a configuration file that knows its place, and collects what is wrong with it.

GitLab's files hold hundreds of keys of which this tool reads a few, and their values follow Ruby's leniency (a port
may be text, a password may be a number). A structuring library such as cattrs wants one class for each section and
still needs a hook for each of these, so that this small reader is the shorter way; it keeps the place of every value.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NoReturn, TypeGuard

from attrs import field, frozen

from ..errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

_KINDS = {dict: "a mapping", list: "a list", str: "text", bool: "true or false", int: "a number", float: "a number"}

LARGEST = 10**10
"""The largest number that is accepted anywhere: as seconds, 317 years."""


@frozen
class Problems:
    """What is wrong with one file: each a line, in the order in which it was noticed. Never holds a value."""

    place: str
    """The file, or what else the values come from."""
    lines: list[str] = field(factory=list)

    def add(self, keys: tuple[str, ...], text: str) -> None:
        """Note that something is wrong at a key path; once, however often it is noticed."""
        line = f"{shown(keys)}: {text}" if keys else text
        if line not in self.lines:
            self.lines.append(line)

    def check(self, hint: str | None = None) -> None:
        """Raise a `ConfigurationError` that names everything that was noticed, if anything was."""
        if self.lines:
            raise ConfigurationError(
                "\n  - ".join((f"{self.place} cannot be used:", *self.lines)),
                hint=hint or "Correct the file, or name another one.",
            )


def shown(keys: tuple[str, ...]) -> str:
    """Return a key path as it is printed: `production.backup.path`."""
    return ".".join(key if key.isprintable() else ascii(key) for key in keys)


def kind(value: object) -> str:
    """Return what sort of value it is, in words, without the value."""
    return _KINDS.get(type(value), "a value of another type")


def usable(text: str) -> bool:
    """Tell whether a text can be given to the system at all: as a path, an argument, an environment variable."""
    try:
        return b"\0" not in text.encode()
    except UnicodeEncodeError:
        return False


def is_mapping(value: object) -> TypeGuard[Mapping[object, object]]:
    """Tell whether a value is a mapping, as any YAML or TOML reader makes it."""
    return isinstance(value, Mapping)


@frozen
class Section:
    """A mapping inside a configuration file, with its place. A getter notes a wrong value, and returns None."""

    problems: Problems
    keys: tuple[str, ...] = ()
    values: Mapping[Any, object] = field(factory=dict, repr=False)

    def source(self, *keys: str) -> str:
        """Return where a value comes from: the file, and the key path in it."""
        return f"{self.problems.place}: {shown((*self.keys, *keys))}"

    def wrong(self, key: str, text: str) -> None:
        """Note that the value of a key is wrong."""
        self.problems.add((*self.keys, key), text)

    def has(self, key: str) -> bool:
        """Tell whether a key has a value. An empty text is none, as everywhere in these files."""
        return self.values.get(key) not in (None, "")

    def names(self) -> tuple[str, ...]:
        """Return the keys. One that is not a text is noted as wrong."""
        names = []
        for key in self.values:
            if isinstance(key, bool) or not isinstance(key, (str, int)):
                self.problems.add(self.keys, "has a name that is not text; put it in quotes")
            elif usable(str(key)):
                names.append(str(key))
            else:
                self.problems.add(self.keys, "has a name with a NUL or half a surrogate pair in it")
        return tuple(names)

    def section(self, key: str) -> Section:
        """Return the section below a key; an empty one, if there is none."""
        value = self.values.get(key)
        if value is None and key.isdecimal():
            # `1:` without quotes is the name of a connection or a storage all the same.
            value = self.values.get(int(key[:20]))
        if value is not None and not is_mapping(value):
            self.wrong(key, f"must be a mapping, not {kind(value)}")
            value = None
        return Section(self.problems, (*self.keys, key), value or {})

    def inner(self, dotted: str) -> tuple[Section, str]:
        """Return the section and the key that a dotted key (`artifacts.storage_path`) means."""
        *above, key = dotted.split(".")
        section = self
        for name in above:
            section = section.section(name)
        return section, key

    def string(self, key: str) -> str | None:
        """Return a text. A whole number counts as one, because Ruby takes it for one where it needs a text."""
        value = self.values.get(key)
        if value is None or value == "":
            return None
        if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 10**100:
            value = str(value)
        if not isinstance(value, str):
            advice = "" if isinstance(value, (list, Mapping)) else "; put it in quotes"
            self.wrong(key, f"must be text, not {kind(value)}{advice}")
            return None
        if not usable(value):
            self.wrong(key, "must not have a NUL or half a surrogate pair in it")
            return None
        return value

    def integer(self, key: str, *, low: int = 0, high: int = LARGEST) -> int | None:
        """Return a whole number between `low` and `high`."""
        value = self.values.get(key)
        if value is None or value == "":
            return None
        if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= len(str(LARGEST)):
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            self.wrong(
                key, "must be a whole number" + ("" if isinstance(value, (str, float)) else f", not {kind(value)}")
            )
            return None
        if not low <= value <= high:
            self.wrong(key, f"must be between {low} and {high}")
            return None
        return value

    def boolean(self, key: str) -> bool | None:
        """Return true or false, also where it is written in quotes."""
        value = self.values.get(key)
        if value is None or value == "":
            return None
        if isinstance(value, str) and value.lower() in ("true", "false"):
            return value.lower() == "true"
        if not isinstance(value, bool):
            self.wrong(key, "must be true or false" + ("" if isinstance(value, str) else f", not {kind(value)}"))
            return None
        return value

    def strings(self, key: str) -> tuple[str, ...]:
        """Return a list of texts. A single text counts as a list of one."""
        value = self.values.get(key)
        if not isinstance(value, list):
            single = self.string(key)
            return (single,) if single is not None else ()
        below = Section(self.problems, (*self.keys, key), {str(number): item for number, item in enumerate(value)})
        return tuple(item for name in below.values if (item := below.string(str(name))) is not None)


def refuse(place: Path | str, text: str, *, hint: str) -> NoReturn:
    """Raise the error for a file that cannot be used as a whole.

    Without the error that it follows from: that one may quote the file, and a traceback would show it.
    """
    raise ConfigurationError(f"{place} {text}", hint=hint) from None
