"""Strategies that damage a valid document."""

from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Iterator

HOSTILE: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2, 3, 10**30, 1.5, 1e300, float("nan"), float("inf"), "", "x", "2", "../x"),
    *("\ud800", "\0", [], {}, [[]], {"a": {"a": 1}}, "2024-04-25T13:55:14", "9999-12-31T23:59:59-14:00", "a" * 300),
)


@st.composite
def mutated_bytes(draw: st.DrawFn, valid: bytes) -> bytes:
    """`valid` with some bytes flipped, removed, inserted or swapped, or cut short."""
    data = bytearray(valid)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, max(len(data) - 1, 0)))
        length = draw(st.integers(1, 8))
        match draw(st.sampled_from(["flip", "remove", "insert", "repeat", "cut"])):
            case "flip" if data:
                data[at] ^= 1 << draw(st.integers(0, 7))
            case "remove":
                del data[at : at + length]
            case "insert":
                data[at:at] = draw(
                    st.binary(min_size=1, max_size=8) | st.sampled_from([b'"', b"{", b"[", b",", b"\\u"])
                )
            case "repeat":
                data[at:at] = data[at : at + length * 8]
            case "cut":
                del data[at:]
    return bytes(data)


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    keys = value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield value, key
        yield from _places(value[key])


@st.composite
def mutated_json(draw: st.DrawFn, valid: bytes) -> bytes:
    """`valid` with some values of any depth swapped for others, removed, renamed, or added to."""
    document = copy.deepcopy(json.loads(valid))
    for _ in range(draw(st.integers(1, 3))):
        places = list(_places(document))
        if not places:
            break
        parent, key = draw(st.sampled_from(places))
        match draw(st.sampled_from(["swap", "swap", "remove", "add", "rename"])):
            case "swap":
                parent[key] = copy.deepcopy(draw(st.sampled_from(HOSTILE)))
            case "remove":
                del parent[key]
            case "add" if isinstance(parent, list):
                parent.append(copy.deepcopy(draw(st.sampled_from(HOSTILE))))
            case "add":
                parent[draw(st.text(max_size=5))] = copy.deepcopy(draw(st.sampled_from(HOSTILE)))
            case "rename" if isinstance(parent, dict):
                parent[draw(st.sampled_from(["", "id", "backup_id", "\ud800"]))] = parent.pop(key)
    return json.dumps(document).encode()
