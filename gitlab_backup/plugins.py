"""What other distributions register by entry points: found by name, and refused, with whose it is, if it is no good."""

from __future__ import annotations

import inspect
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

from .errors import PluginError

if TYPE_CHECKING:
    from collections.abc import Collection
    from importlib.metadata import EntryPoint


def names(group: str) -> tuple[str, ...]:
    """Return the names that are registered in a group, sorted."""
    return tuple(sorted(entry_points(group=group).names))


def known(group: str, built_in: Collection[str]) -> str:
    """Return all names of a group, the built-in ones first, for a hint; the others with their distribution."""
    others = (entry for entry in entry_points(group=group) if entry.name not in built_in)
    listed = [*built_in, *sorted(f"{entry.name} (of {_distribution(entry)})" for entry in others)]
    return f"{', '.join(listed)}. Others are registered by installed distributions, as entry points {group}"


def load(group: str, name: str, protocol: type) -> object | None:
    """Make a new object of the class that is registered under `name`; None where there is none.

    Raises `PluginError` where it cannot be imported or made, lacks a member of `protocol`, or calls itself otherwise:
    a backup records that name, and would not be readable.
    """
    found = [entry for entry in entry_points(group=group) if entry.name == name]
    if not found:
        return None
    entry = found[0]
    if len(found) > 1:
        raise PluginError(
            f"{name} is registered as an entry point {group} by more than one distribution:"
            f" {' and '.join(sorted(_distribution(each) for each in found))}",
            hint="Uninstall all of them but one.",
        )
    try:
        made = entry.load()()
    except Exception as error:
        raise unusable(entry, f"cannot be loaded: {type(error).__name__}: {error}") from error
    if missing := [member for member in _members(protocol) if not hasattr(made, member)]:
        raise unusable(entry, f"is no {protocol.__name__}: it has no {', '.join(missing)}")
    if made.name != name:
        raise unusable(entry, f"calls itself {made.name!r}: its name must be that of the entry point")
    return made  # type: ignore[no-any-return]


def unusable(entry: EntryPoint, problem: str) -> PluginError:
    """Return the error that says whose plug-in it is, where it is registered, and what is wrong with it."""
    distribution = _distribution(entry)
    return PluginError(
        f"the plug-in {entry.name} of {distribution} (entry point {entry.group}: {entry.value}) {problem}",
        hint=f"Repair, update or uninstall {distribution}.",
    )


def registered(group: str, name: str) -> EntryPoint:
    """Return the entry point of that name, which must exist."""
    return next(entry for entry in entry_points(group=group) if entry.name == name)


def _members(protocol: type) -> list[str]:
    members = {**inspect.get_annotations(protocol), **vars(protocol)}
    return [member for member in members if not member.startswith("_")]


def _distribution(entry: EntryPoint) -> str:
    if entry.dist is None:
        return "an unknown distribution"
    return f"{entry.dist.name} {entry.dist.version}"
