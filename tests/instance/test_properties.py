"""Whatever is in the files, the answer is an instance or a `ConfigurationError`, and no secret in either."""

from __future__ import annotations

import pickle
import tempfile
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from hypothesis import given
from hypothesis import strategies as st

from gitlab_backup.components import COMPONENTS, Holder
from gitlab_backup.errors import ConfigurationError
from gitlab_backup.instance import Instance

from .sample import DATABASE_YML, GITLAB_YML, SECRET, install

if TYPE_CHECKING:
    from collections.abc import Callable

# A dump of these can hold anything that YAML can, dates and bytes included.
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.binary(max_size=4)
    | st.dates()
    | st.datetimes()
    | st.sampled_from([SECRET, f"/{SECRET}", "true", "5432", "/", "..", "a\0b", "postgresql://h/d", 10**30])
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=5) | st.integers() | st.dates(), inner, max_size=3)
    ),
    max_leaves=5,
)


def outcome(gitlab_yml: bytes, database_yml: bytes, environ: dict[str, str] | None = None) -> str:
    """Read two files, look at all that can be printed of the result, and return it."""
    with tempfile.TemporaryDirectory() as directory:
        installation = install(Path(directory))
        installation.gitlab_yml.write_bytes(gitlab_yml)
        installation.database_yml.write_bytes(database_yml)
        try:
            instance = Instance.load(gitlab_path=installation.root, environ=environ or {})
        except ConfigurationError as error:
            return f"{''.join(traceback.format_exception(error))}{error!r}{error.hint}"
        shown = repr(instance) + repr(pickle.loads(pickle.dumps(instance)))  # noqa: S301
        for component in COMPONENTS:
            if component.holder is Holder.DIRECTORY:
                try:
                    instance.directory(component)
                except ConfigurationError as error:
                    shown += str(error)
        for database in instance.databases:
            assert all("\0" not in value for value in database.environment().values())
        return shown


def places(value: object, keys: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the key path of everything in a tree."""
    found = [keys] if keys else []
    if isinstance(value, dict):
        for key, inner in value.items():
            found += places(inner, (*keys, key))
    return found


def changed(text: str, keys: tuple[Any, ...], value: object) -> bytes:
    """Return a YAML text with the value at a key path replaced."""
    tree = yaml.safe_load(text)
    inner = tree
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = value
    return yaml.safe_dump(tree, allow_unicode=True).encode(errors="surrogatepass")


GITLAB_PLACES = places(yaml.safe_load(GITLAB_YML))
DATABASE_PLACES = places(yaml.safe_load(DATABASE_YML))


@given(st.sampled_from(GITLAB_PLACES), VALUES)
def test_any_value_in_gitlab_yml(keys: tuple[Any, ...], value: object) -> None:
    """Any value in any place of gitlab.yml is used or refused."""
    outcome(changed(GITLAB_YML, keys, value), DATABASE_YML.encode())


@given(st.sampled_from(DATABASE_PLACES), VALUES)
def test_any_value_in_database_yml(keys: tuple[Any, ...], value: object) -> None:
    """Any value in any place of database.yml is used or refused."""
    outcome(GITLAB_YML.encode(), changed(DATABASE_YML, keys, value))


@given(st.data())
def test_any_damage(data: st.DataObject) -> None:
    """Any bytes in place of any part of a file give an instance or a plain error."""
    texts = [GITLAB_YML.encode(), DATABASE_YML.encode()]
    which = data.draw(st.integers(0, 1))
    text = texts[which]
    start = data.draw(st.integers(0, len(text)))
    stop = data.draw(st.integers(start, min(len(text), start + 40)))
    noise = data.draw(
        st.binary(max_size=6) | st.sampled_from([b": ", b"{", b"[", b'"', b"\n", b"*a", b"&a ", b"!x ", b"- ", b"<<: "])
    )
    texts[which] = text[:start] + noise + text[stop:]
    outcome(texts[0], texts[1])


@given(st.binary(max_size=60) | st.text(alphabet="ab: -[]{}&*!|>'\"%@`#,?\n\t<0123.~", max_size=60).map(str.encode))
def test_any_file(content: bytes) -> None:
    """Any content at all gives an instance or a plain error, in either file."""
    outcome(content, DATABASE_YML.encode())
    outcome(GITLAB_YML.encode(), content)


HIDDEN: list[Callable[[Any], bytes]] = [
    lambda value: changed(GITLAB_YML, ("production", "gitaly", "token"), value),
    lambda value: changed(GITLAB_YML, ("production", "repositories", "storages", "second", "gitaly_token"), value),
    lambda value: changed(GITLAB_YML, ("production", "artifacts", "object_store", "connection"), value),
    lambda value: changed(GITLAB_YML, ("production", "object_store"), {"enabled": True, "connection": value}),
]


@given(
    st.sampled_from(HIDDEN), st.sampled_from([SECRET, [SECRET], {"key": SECRET}, {"a": [{"b": SECRET}]}, SECRET + "\0"])
)
def test_secrets_of_gitlab_yml(change: Callable[[Any], bytes], value: object) -> None:
    """A secret is never shown, whatever shape it has; nor where a wrong one makes an error."""
    assert SECRET not in outcome(change(value), DATABASE_YML.encode())


@given(
    st.sampled_from(["main", "ci"]),
    st.sampled_from(["password", "url", "port", "adapter", "database_tasks", "connect_timeout"]),
    st.sampled_from(
        [
            SECRET,
            [SECRET],
            {"key": SECRET},
            f"postgresql://u:{SECRET}@h/d",
            f"postgresql://u:{SECRET}@h:x/d",
            SECRET + "\0",
        ]
    ),
)
def test_secrets_of_database_yml(name: str, key: str, value: object) -> None:
    """A password is never shown, nor what stands by mistake where another value must be."""
    assert SECRET not in outcome(GITLAB_YML.encode(), changed(DATABASE_YML, ("production", name, key), value))


@given(
    st.dictionaries(
        st.sampled_from(
            [
                f"{prefix}PG{name}"
                for prefix in ("GITLAB_BACKUP_", "GITLAB_OVERRIDE_CI_")
                for name in ("HOST", "PORT", "PASSWORD", "SSLMODE")
            ]
            + [
                "REGISTRY_DATABASE_HOST",
                "REGISTRY_DATABASE_PORT",
                "REGISTRY_DATABASE_CONNECT_TIMEOUT",
                "RAILS_ENV",
                "PATH",
            ]
        ),
        # As the environment can be: no NUL, bytes that are not UTF-8 as surrogates.
        st.binary(max_size=8).map(lambda data: data.replace(b"\0", b"").decode(errors="surrogateescape")),
    )
)
def test_any_environment(environ: dict[str, str]) -> None:
    """Any value of the variables gives an instance or a plain error."""
    outcome(GITLAB_YML.encode(), DATABASE_YML.encode(), environ)
