"""What is measured: a module for each kind of data. Each makes its data when it is asked for, and yields contests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from . import databases, everything, files, growth, repositories, scaling, start

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from ..contest import Contest
    from ..place import Place

SCENARIOS: Final[Mapping[str, Callable[[Place], Iterator[Contest]]]] = {
    "start": start.contests,
    "files-mixed": files.mixed,
    "files-text": files.text,
    "database": databases.wide,
    "database-tables": databases.many,
    "repositories": repositories.mixed,
    "small-repositories": repositories.small,
    "everything": everything.contests,
    "verify": everything.verification,
    "growth": growth.contests,
    "scaling": scaling.contests,
    "files-tiny": files.tiny,
}
"""By name, in the order in which they run: the one that fills the page cache comes last."""
