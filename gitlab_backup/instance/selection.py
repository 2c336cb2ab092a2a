"""Which of an instance's repositories: by storage, and by the path of the group or project that they belong to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from attrs import field, frozen

from ..errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ..documents import JSON

_KEYS: Final = ("storages", "paths", "skip_paths")


def _names(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(values))


def _paths(values: Iterable[str]) -> tuple[str, ...]:
    paths = _names(value.strip("/") for value in values)
    for path in paths:
        if not path or not path.isprintable():
            raise UsageError(
                f"{path!a} is no path of a group or project",
                hint="Give it as in its URL, without the host: group/project.",
            )
    return paths


@frozen(kw_only=True)
class Selection:
    """A choice among repositories. Whatever is empty leaves nothing out.

    A path stands for a group with all below it, or for a project: wikis, designs and snippets of a project follow it,
    and the wiki of a group follows that. A personal snippet belongs to no path. As in URLs, case does not matter.

    Raises `UsageError` for what cannot be a path.
    """

    storages: tuple[str, ...] = field(default=(), converter=_names)
    """Only those on these storages."""
    paths: tuple[str, ...] = field(default=(), converter=_paths)
    """Only those of these groups and projects, by their full path, without slashes around it."""
    skip_paths: tuple[str, ...] = field(default=(), converter=_paths)
    """None of these groups and projects."""

    def __bool__(self) -> bool:
        """Return whether it leaves anything out."""
        return bool(self.storages or self.paths or self.skip_paths)

    @property
    def by_path(self) -> bool:
        """Whether only the database can say what it stands for."""
        return bool(self.paths or self.skip_paths)

    def __str__(self) -> str:
        """Return it in words, to follow "only repositories"."""
        parts = []
        if self.storages:
            parts.append(f"on {', '.join(self.storages)}")
        if self.paths:
            parts.append(f"of {', '.join(self.paths)}")
        if self.skip_paths:
            parts.append(f"without those of {', '.join(self.skip_paths)}")
        return ", ".join(parts)

    def to_record(self) -> dict[str, JSON]:
        """Return it as a manifest keeps it."""
        return {key: list(getattr(self, key)) for key in _KEYS}

    @classmethod
    def from_record(cls, record: object) -> Selection:
        """Return what a manifest has kept; everything where it has kept none."""
        kept: Mapping[object, object] = record if isinstance(record, dict) else {}
        values = {key: value if isinstance(value := kept.get(key), list) else [] for key in _KEYS}
        return cls(**{key: tuple(map(str, value)) for key, value in values.items()})

    def condition(self, storage: str, route: str, name: str) -> tuple[str, dict[str, list[str]]]:
        """Return an SQL condition on the expressions `storage` and `route`, and its parameters (`<name>_…`).

        `route` is the path of the project or group that a row is about; NULL where it has none.
        """
        conditions = ["true"]
        if self.storages:
            conditions.append(f"{storage} = ANY(%({name}_storages)s::text[])")
        if self.paths:
            conditions.append(_below(route, f"{name}_paths"))
        if self.skip_paths:
            conditions.append(f"NOT {_below(route, f'{name}_skip_paths')}")
        return " AND ".join(conditions), {f"{name}_{key}": list(getattr(self, key)) for key in _KEYS}


EVERYTHING: Final = Selection()


def _below(route: str, parameter: str) -> str:
    # The slash at both ends keeps `group-2` from being taken for a part of `group`. A route that is NULL is below none.
    return (
        f"EXISTS (SELECT FROM unnest(%({parameter})s::text[]) AS wanted"
        f" WHERE starts_with(lower({route}) || '/', lower(wanted) || '/'))"
    )
