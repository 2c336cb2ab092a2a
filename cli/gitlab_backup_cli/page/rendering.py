"""Templates to pages. Whatever comes from a backup is escaped here, in one place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from attrs import frozen
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from gitlab_backup.version import __version__

from ..text import escape, time

if TYPE_CHECKING:
    from datetime import datetime

PROGRAM: Final = f"gitlab-backup-cli {__version__}"


@frozen
class Badge:
    """A word with a colour: `good`, `warn`, `bad` or none."""

    text: str
    tone: str = ""


@frozen
class Tile:
    """A figure at the top of the page."""

    name: str
    value: str
    note: str = ""


@frozen(kw_only=True)
class Told:
    """Warnings, or what was left out, of one backup: whom each is about, and what it says."""

    head: str
    texts: tuple[tuple[str | None, str], ...]
    more: int
    """How many are not shown."""
    where: str


def render(template: str, made_at: datetime, **values: object) -> str:
    """Return a page: HTML in ASCII alone, so that every stream and every server passes it on as it is."""
    environment = Environment(
        loader=PackageLoader("gitlab_backup_cli.page"),
        autoescape=True,
        finalize=_visible,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    loader = environment.loader
    style = loader.get_source(environment, "style.css")[0] if loader is not None else ""
    page = environment.get_template(template).render(
        **values,
        style=Markup(style),  # noqa: S704 - our own
        program=PROGRAM,
        made_at=time(made_at),
    )
    return page.encode("ascii", "xmlcharrefreplace").decode("ascii")


def _visible(value: object) -> object:
    """Make control characters, and those that turn the direction of text, visible: names can have them."""
    return escape(value) if isinstance(value, str) and not isinstance(value, Markup) else value
