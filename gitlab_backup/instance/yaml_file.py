"""Reading YAML files that people and templates wrote, without ever showing what is in them.

Ruby reads these files as YAML 1.1 with anchors, aliases and merge keys, and takes the last of two equal keys; so does
PyYAML.
"""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

from .section import Problems, Section, is_mapping, kind, refuse, shown

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from typing import Any

LARGEST_FILE = 4 << 20
"""Bytes. GitLab's example of `gitlab.yml` has about 60 KiB; more than this is another file, or a mistake."""
LARGEST_TREE = 200_000
"""Nodes, with every alias written out: bounds a file whose aliases multiply each other ("billion laughs")."""
DEEPEST = 100
"""Levels. The readers are recursive, that of libyaml in C, where nothing else bounds it."""

_YAML_HINT = "Passwords with characters such as # : % @ must be in quotes."


def read_bytes(file: Path) -> bytes:
    """Return what is in a configuration file.

    Raises `ConfigurationError` where it is missing, unreadable, not a regular file, or too large to be one.
    """
    try:
        # Looked at first, because opening a named pipe would wait for a writer.
        if not stat.S_ISREG(file.stat().st_mode):
            refuse(file, "is not a file", hint="Name the file itself.")
        with file.open("rb") as stream:
            data = stream.read(LARGEST_FILE + 1)
    except FileNotFoundError:
        refuse(file, "does not exist", hint="Check the path, or name the file with an option.")
    except PermissionError:
        refuse(file, "cannot be read: permission denied", hint="Run this as root, or as the user that GitLab runs as.")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else None
        refuse(file, f"cannot be read: {reason or 'its name cannot be a path'}", hint="Check the path.")
    if len(data) > LARGEST_FILE:
        refuse(file, f"is larger than {LARGEST_FILE >> 20} MiB", hint="Is it the right file?")
    return data


def read_mapping(file: Path) -> Mapping[object, object]:
    """Return the mapping that a YAML file holds. Raises `ConfigurationError`, with line and column where known."""
    return parse_mapping(read_bytes(file), str(file))


def parse_mapping(data: bytes, place: str) -> Mapping[object, object]:
    """Return the mapping that a YAML text holds; `place` names it in errors. See `read_mapping`."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        refuse(place, f"is not UTF-8 text (byte {error.start})", hint="Save it as UTF-8.")
    _refuse_templates(text, place)
    value = _parse(text, place)
    if value is None:
        refuse(place, "is empty", hint="Is it the right file? GitLab writes its configuration there.")
    if not is_mapping(value):
        refuse(place, f"must hold a mapping, not {kind(value)}", hint="Is it the right file?")
    return value


def read_environment(file: Path, rails_env: str) -> Section:
    """Return the section of a Rails environment of a file.

    Raises `ConfigurationError` where it has none, naming those that it has.
    """
    top = Section(Problems(str(file)), (), read_mapping(file))
    if rails_env not in top.values:
        names = ", ".join(shown((name,)) for name in top.values if isinstance(name, str))
        refuse(
            file,
            f"has no environment {shown((rails_env,))}; it has {names or 'none'}",
            hint="Set RAILS_ENV to an environment that the files have.",
        )
    return top.section(rails_env)


def _refuse_templates(text: str, place: str) -> None:
    for number, line in enumerate(text.splitlines(), start=1):
        if "<%" in line and not line.lstrip().startswith("#"):
            refuse(
                place,
                f"has an ERB template (<% … %>) at line {number}, which only Ruby can evaluate",
                hint="Write the value itself, use config_command for secrets, or name a rendered copy of the file.",
            )


def _parse(text: str, place: str) -> object:
    """Parse in three steps, each bounded by the one before: events, then nodes, then values."""
    import yaml

    loader_class: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    loader: Any = None
    try:
        depth = 0
        for event in yaml.parse(text, Loader=loader_class):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > DEEPEST:
                _refuse_size(place, "is nested too deeply")
        loader = loader_class(text)
        # Of several documents Ruby reads the first.
        if not loader.check_node():
            return None
        node = loader.get_node()
        _measure(node, place, {})
        value: object = loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        # Only the scanner and the parser speak of grammar alone; and even they may quote what they found.
        said = error.problem if isinstance(error, (yaml.scanner.ScannerError, yaml.parser.ParserError)) else None
        why = f": {said}" if said and not set(said) & {"'", '"'} else ""
        refuse(place, f"is not valid YAML{where}{why}", hint=_YAML_HINT)
    except yaml.reader.ReaderError:
        refuse(place, "has characters that YAML does not allow", hint=_YAML_HINT)
    except (yaml.YAMLError, ValueError, TypeError, LookupError, ArithmeticError, AttributeError):
        # PyYAML lets these out for values that look like a date or a number and are none (`2024-99-99`).
        refuse(place, "has a value that looks like a date or a number, but is none", hint="Put such a value in quotes.")
    finally:
        if loader is not None:
            loader.dispose()
    return value


def _measure(node: Any, place: str, known: dict[int, tuple[int, int]]) -> tuple[int, int]:
    """Return how many nodes a node stands for when its aliases are written out, and how deep they go."""
    if id(node) in known:
        size, height = known[id(node)]
        if not size:
            _refuse_size(place, "has an alias inside of what it stands for")
        return size, height
    known[id(node)] = (0, 0)  # being measured
    size, height = 1, 0
    below = node.value if isinstance(node.value, list) else ()
    for item in below:
        for child in item if isinstance(item, tuple) else (item,):
            child_size, child_height = _measure(child, place, known)
            size += child_size
            height = max(height, child_height + 1)
    if size > LARGEST_TREE or height > DEEPEST:
        _refuse_size(place, "is too large when its aliases are written out")
    known[id(node)] = (size, height)
    return size, height


def _refuse_size(place: str, text: str) -> None:
    refuse(place, text, hint="Is it the right file? GitLab's own configuration is far from such limits.")
