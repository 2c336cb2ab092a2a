"""Read the JSON documents of a backup: bounded, strict, and with everything that is wrong in one error."""

from __future__ import annotations

import json
import math
import os
import stat
from datetime import UTC, datetime
from enum import StrEnum
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias, TypeVar, get_args, get_origin

from attrs import has

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from cattrs import Converter

    from .errors import DocumentError

T = TypeVar("T")

JSON: TypeAlias = "bool | int | float | str | list[JSON] | dict[str, JSON] | None"

MAX_DEPTH = 64
"""How deep objects and arrays of a document may be nested."""

MAX_PROBLEMS = 20
"""How many problems of one document are told; of more, only the number."""

_PIECE = 1 << 20
_SHOWN = 100


class _Object(dict[str, JSON]):
    """A JSON object that remembers which of its keys came more than once."""

    duplicates: tuple[str, ...] = ()


def _object(pairs: list[tuple[str, JSON]]) -> _Object:
    result = _Object(pairs)
    if len(result) < len(pairs):
        keys = [key for key, _ in pairs]
        result.duplicates = tuple(key for key in result if keys.count(key) > 1)
    return result


def read_bytes(path: Path, *, limit: int, error: type[DocumentError], hint: str | None = None) -> bytes:
    """Return the content of a document.

    Raises `error` where it cannot be read, is not a regular file, or has more than `limit` bytes.
    """
    try:
        # O_NONBLOCK: a named pipe in its place must not make us wait for ever.
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise error(f"{path} is not a regular file", hint=hint)
            # To ask for as much as there may be takes as much memory, however small the file is.
            pieces, left = [], limit + 1
            while left and (piece := file.read(min(left, _PIECE))):
                pieces.append(piece)
                left -= len(piece)
            data = b"".join(pieces)
    except OSError as problem:
        raise error(f"{path} cannot be read: {problem.strerror}", hint=hint) from problem
    if len(data) > limit:
        raise error(f"{path} is longer than {limit} bytes", hint=hint)
    return data


def parse_object(data: bytes | str, *, limit: int) -> tuple[dict[str, JSON], list[str]]:
    """Parse a document that is one JSON object, and return it with what is wrong in it at any depth.

    Raises `ValueError` where there is nothing to return.
    """
    if isinstance(data, bytes):
        if len(data) > limit:
            raise ValueError(f"longer than {limit} bytes")
        if data.startswith(b"\xef\xbb\xbf"):
            raise ValueError("begins with a byte order mark, which JSON must not have")
        try:
            data = data.decode()
        except UnicodeDecodeError as error:
            raise ValueError(f"not UTF-8 at byte {error.start}") from None
    if len(data) > limit:
        raise ValueError(f"longer than {limit} bytes")
    try:
        document = json.loads(data, object_pairs_hook=_object)
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error}") from None
    except RecursionError:
        raise ValueError(f"nested deeper than {MAX_DEPTH} levels") from None
    except ValueError:  # CPython's bound on the digits of an integer
        raise ValueError("has a number with too many digits") from None
    if not isinstance(document, dict):
        raise ValueError(f"must be an object, not {type_name(document)}")  # noqa: TRY004 - a bad document
    return document, value_problems(document)


def value_problems(value: JSON, place: str = "") -> list[str]:
    """Return what keeps `value` from being plain JSON, one line for each.

    These are keys that appear twice, numbers that are not finite, lone surrogates, and too deep nesting.
    """
    problems = []
    stack: list[tuple[JSON, str, int]] = [(value, place, 0)]
    while stack:
        item, where, depth = stack.pop()
        if depth > MAX_DEPTH:
            problems.append(f"{where[:_SHOWN]}…: nested deeper than {MAX_DEPTH} levels")
        elif isinstance(item, dict):
            problems.extend(f"{join(where, key)}: appears more than once" for key in getattr(item, "duplicates", ()))
            problems.extend(f"{join(where, key)}: not valid Unicode" for key in item if not _is_unicode(key))
            stack.extend((child, join(where, key), depth + 1) for key, child in reversed(item.items()))
        elif isinstance(item, list):
            stack.extend((child, f"{where}[{i}]", depth + 1) for i, child in reversed(list(enumerate(item))))
        elif isinstance(item, float) and not math.isfinite(item):
            problems.append(f"{where}: not a finite number")
        elif isinstance(item, str) and not _is_unicode(item):
            problems.append(f"{where}: not valid Unicode")
    return problems


def join(place: str, key: str) -> str:
    """Return the place of `key` in the object at `place`, fit to be shown."""
    shown = key if key.isprintable() and len(key) <= _SHOWN else repr(key[:_SHOWN])
    return f"{place}.{shown}" if place else shown


def bounded(problems: list[str]) -> tuple[str, ...]:
    """Return the first `MAX_PROBLEMS` problems, and how many more there are."""
    more = len(problems) - MAX_PROBLEMS
    return (*problems[:MAX_PROBLEMS], *([f"and {more} more"] if more > 0 else []))


def type_name(value: object) -> str:
    """Return what JSON calls the type of `value`."""
    if value is None:
        return "null"
    for kind, name in (
        (bool, "a boolean"),
        ((int, float), "a number"),
        (str, "a string"),
        (list, "an array"),
    ):
        if isinstance(value, kind):
            return name
    return "an object"


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def utc_time(text: str) -> datetime:
    """Read an ISO 8601 time with an offset, and return it in UTC. Raises `ValueError`."""
    try:
        time = datetime.fromisoformat(text)
        if time.tzinfo is not None:
            return time.astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    raise ValueError(f"{text[:_SHOWN]!r} is not a time with its offset from UTC, such as 2024-04-25T13:55:14Z")


def structure(cls: type[T], document: Mapping[str, JSON]) -> tuple[T | None, list[str]]:
    """Make an attrs class from a document: the object, or everything that is wrong and where.

    Nothing is converted but what JSON has no type for: enums, and times (`utc_time`). Unknown keys are wrong.
    A field of the type `Annotated[X, read]` goes through `read`, which takes the value and may raise `ValueError`.
    """
    from cattrs.errors import BaseValidationError, ForbiddenExtraKeysError
    from cattrs.v import transform_error

    def explain(error: BaseException, _type: type | None) -> str:
        if isinstance(error, KeyError):
            return "is missing"
        if isinstance(error, ForbiddenExtraKeysError):
            return "unknown key " + ", ".join(join("", str(key)) for key in sorted(error.extra_fields))
        return str(error)

    try:
        return _converter().structure(document, cls), []
    except BaseValidationError as error:
        lines = (line.rpartition(" @ $") for line in transform_error(error, format_exception=explain))
        return None, [f"{place.lstrip('.')}: {problem}" if place else problem for problem, _, place in lines]


@cache
def _converter() -> Converter:
    from cattrs.gen import make_dict_structure_fn
    from cattrs.preconf.json import make_converter

    converter = make_converter(forbid_extra_keys=True)

    def of_class(cls: type, converter: Converter) -> Callable[[Any, Any], Any]:
        make: Any = make_dict_structure_fn(cls, converter, _cattrs_forbid_extra_keys=True)
        return lambda value, kind: make(_expect(value, dict, "an object"), kind)

    def of_tuple(cls: type, converter: Converter) -> Callable[[Any, Any], Any]:
        items: Any = list.__class_getitem__(get_args(cls)[0])
        return lambda value, _: tuple(converter.structure(_expect(value, list, "an array"), items))

    def of_annotated(cls: type, converter: Converter) -> Callable[[Any, Any], Any]:
        plain, read = get_args(cls)
        if get_origin(plain) is not None:  # a mapping, whose values are for `read` alone to judge
            return lambda value, _: read(_expect(value, dict, "an object"))
        return lambda value, _: read(converter.structure(value, plain))

    def of_enum(value: Any, kind: type[StrEnum]) -> StrEnum:
        if value in list(kind):
            return kind(value)
        raise ValueError(f"must be one of {', '.join(kind)}")

    def of_time(value: Any, _: object) -> datetime:
        return utc_time(_expect(value, str, "a string"))

    annotated = type(Annotated[int, None])
    hook, factory = converter.register_structure_hook, converter.register_structure_hook_factory
    hook(str, lambda value, _: _expect(value, str, "a string"))
    hook(int, lambda value, _: _expect(value, int, "an integer"))
    hook(float, lambda value, _: _expect(value, (int, float), "a number"))
    hook(datetime, of_time)
    hook(StrEnum, of_enum)  # a hook of a class is for its subclasses too: this one comes before that of `str`
    factory(has, of_class)
    factory(lambda kind: getattr(kind, "__origin__", None) is tuple, of_tuple)
    factory(lambda kind: isinstance(kind, annotated), of_annotated)
    return converter


def _expect(value: object, kind: type[T] | tuple[type[T], ...], name: str) -> T:
    if not isinstance(value, kind) or isinstance(value, bool):
        raise ValueError(f"must be {name}, not {type_name(value)}")  # noqa: TRY004
    return value
