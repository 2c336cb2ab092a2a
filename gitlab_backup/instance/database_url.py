"""The `url` of a connection in `database.yml`."""

from __future__ import annotations

from urllib.parse import parse_qsl, unquote, urlsplit

from .section import Section

_SCHEMES = ("postgresql", "postgres")


def merge_url(section: Section) -> tuple[Section, frozenset[str]]:
    """Return the section with its `url` taken apart, and the keys that come from it. As in Rails, the URL wins.

    What is wrong with the URL is noted, without a word of it: it may hold the password.
    """
    url = section.string("url")
    if url is None:
        return section, frozenset()
    try:
        parts = urlsplit(url)
        found: dict[object, object] = {
            "host": unquote(parts.hostname or ""),
            "port": parts.port,
            "username": unquote(parts.username or ""),
            "password": unquote(parts.password or ""),
            "database": unquote(parts.path.removeprefix("/")),
        }
        found |= dict(parse_qsl(parts.query, strict_parsing=bool(parts.query)))
    except ValueError:
        section.wrong("url", "is not a URL")
        return section, frozenset()
    if parts.scheme not in _SCHEMES:
        section.wrong("url", "must begin with postgresql://")
    found = {key: value for key, value in found.items() if value not in (None, "")}
    return Section(section.problems, section.keys, {**section.values, **found}), frozenset(map(str, found))
