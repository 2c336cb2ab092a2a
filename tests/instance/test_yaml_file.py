"""What a configuration file that is missing, broken or hostile gets: a plain error, and nothing of its content."""

from __future__ import annotations

import os
import re
import traceback
from typing import TYPE_CHECKING

import pytest

from gitlab_backup.errors import ConfigurationError
from gitlab_backup.instance.yaml_file import DEEPEST, LARGEST_FILE, parse_mapping, read_environment, read_mapping

from .sample import SECRET

if TYPE_CHECKING:
    from pathlib import Path


def refused(text: str) -> ConfigurationError:
    """Return the error that a text gets."""
    with pytest.raises(ConfigurationError) as caught:
        parse_mapping(text.encode(), "FILE")
    assert caught.value.hint
    assert SECRET not in "".join(traceback.format_exception(caught.value)) + caught.value.hint
    return caught.value


def test_anchors_aliases_and_merge_keys() -> None:
    """Merge keys fill in what is not there; of two merged ones the first wins, of two equal keys the last."""
    text = "a: &a {x: 1, y: 1}\nb: &b {x: 2, z: 2}\nc: {<<: [*a, *b], y: 3}\nd: *a\ne: 1\ne: 2\n"
    assert parse_mapping(text.encode(), "FILE") == {
        "a": {"x": 1, "y": 1},
        "b": {"x": 2, "z": 2},
        "c": {"x": 1, "y": 3, "z": 2},
        "d": {"x": 1, "y": 1},
        "e": 2,
    }


def test_first_document_counts() -> None:
    """Of several documents the first is read, as Ruby does; a byte order mark is no content."""
    assert parse_mapping(b"\xef\xbb\xbf---\na: 1\n---\nb: 2\n", "FILE") == {"a": 1}


@pytest.mark.parametrize("text", ["", "# only a comment\n", "---\n", "~"])
def test_empty(text: str) -> None:
    """An empty file is said to be empty."""
    assert "FILE is empty" in refused(text).message


@pytest.mark.parametrize(
    ("text", "found"), [("[1]", "a list"), (SECRET, "text"), ("1", "a number"), ("true", "true or false")]
)
def test_no_mapping(text: str, found: str) -> None:
    """A file that holds no mapping is told what it holds."""
    assert refused(text).message == f"FILE must hold a mapping, not {found}"


@pytest.mark.parametrize(
    ("text", "place"),
    [
        (f'a: 1\nb: "{SECRET}', "line 2"),
        (f"a:\n  password: %{SECRET}", "line 2, column 13"),
        (f"a:\n  password: x: {SECRET}", "line 2, column 14"),
        (f"password: *{SECRET}", "line 1, column 11"),
        (f"password: !{SECRET} x", "line 1, column 11"),
        (f"password: @{SECRET}", "line 1, column 11"),
        (f"? [{SECRET}]\n: 1", "line 1"),
        (f"a: &x 1\nb: {{<<: {SECRET}}}", "line 2"),
    ],
)
def test_broken_yaml(text: str, place: str) -> None:
    """Broken YAML is refused with line and column, and nothing of the line."""
    assert f"FILE is not valid YAML at {place}" in refused(text).message


@pytest.mark.parametrize(
    "text", ["a: 2024-99-99", "a: !!int ''", "a: !!bool maybe", "a: " + "9" * 5000, "a: !!float x", "a: !!timestamp x"]
)
def test_value_that_only_looks_like_one(text: str) -> None:
    """A value that PyYAML stumbles over is refused as any other."""
    assert "looks like a date or a number" in refused(text).message


@pytest.mark.parametrize("data", [b"a: \xff", b"\xff\xfea\0", b"a: \x07"])
def test_not_text(data: bytes) -> None:
    """Bytes that are not UTF-8 text, and control characters, are refused."""
    with pytest.raises(ConfigurationError, match=r"not UTF-8|not allow|not valid YAML"):
        parse_mapping(data, "FILE")


def test_template() -> None:
    """ERB is named as what it is, with its line; in a comment it does no harm."""
    error = refused(f"a: 1 \n# <%= comment %>\nb: <%= '{SECRET}' %>\n")
    assert "ERB template (<% … %>) at line 3" in error.message
    assert "config_command" in str(error.hint)
    assert parse_mapping(b"a: 1\n  # <%= comment %>\n", "FILE") == {"a": 1}


@pytest.mark.parametrize("brackets", [("[", "]"), ("{a: ", "}")])
def test_deep_nesting(brackets: tuple[str, str]) -> None:
    """Nesting is bounded: a file of brackets neither overflows the stack nor takes long."""
    deep = f"a: {brackets[0] * 50_000}{brackets[1] * 50_000}"
    # The parser itself may give up first: libyaml has a bound of its own.
    assert re.search("nested too deeply|nesting depth", refused(deep).message)


def test_deep_aliases() -> None:
    """Depth that is built of aliases is bounded, too."""
    text = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}]\n" for n in range(1, DEEPEST + 5))
    assert "too large" in refused(text).message


@pytest.mark.parametrize("form", ["[{}]", "{{<<: [{}]}}"])
def test_aliases_that_multiply(form: str) -> None:
    """Aliases of aliases ("billion laughs") are refused before they are written out, in sequences and in merge keys."""
    text = "a0: &a0 " + ("{x: 1}" if "<<" in form else "[x]") + "\n"
    for number in range(1, 30):
        text += f"a{number}: &a{number} " + form.format(", ".join([f"*a{number - 1}"] * 10)) + "\n"
    assert "too large when its aliases are written out" in refused(text).message


@pytest.mark.parametrize("text", ["a: &a [*a]", "a: &a {<<: *a}", "&a {b: *a}"])
def test_alias_of_itself(text: str) -> None:
    """An alias inside of its own anchor is refused."""
    assert "has an alias inside of what it stands for" in refused(text).message


def test_missing_directory_and_pipe(tmp_path: Path) -> None:
    """What is not a regular file is refused; a named pipe without waiting for somebody to write to it."""
    with pytest.raises(ConfigurationError, match=r"missing\.yml does not exist"):
        read_mapping(tmp_path / "missing.yml")
    with pytest.raises(ConfigurationError, match="is not a file"):
        read_mapping(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ConfigurationError, match="pipe is not a file"):
        read_mapping(tmp_path / "pipe")
    with pytest.raises(ConfigurationError, match="cannot be read: File name too long"):
        read_mapping(tmp_path / ("x" * 300))
    with pytest.raises(ConfigurationError, match="cannot be read: its name cannot be a path"):
        read_mapping(tmp_path / "a\0b")


def test_too_large(tmp_path: Path) -> None:
    """A file that is too large for configuration is not read to its end."""
    file = tmp_path / "large.yml"
    with file.open("wb") as stream:
        stream.truncate(LARGEST_FILE * 1000)
    with pytest.raises(ConfigurationError, match="is larger than 4 MiB"):
        read_mapping(file)


def test_unreadable(tmp_path: Path) -> None:
    """A file that may not be read says so, and as whom to run."""
    file = tmp_path / "secret.yml"
    file.write_text("a: 1", encoding="utf-8")
    file.chmod(0)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)  # Root may read everything.
    try:
        with pytest.raises(ConfigurationError, match="permission denied") as caught:
            read_mapping(file)
    finally:
        os.seteuid(user)
    assert "as root" in str(caught.value.hint)


def test_environment_of_another_type(tmp_path: Path) -> None:
    """An environment that is no mapping is noted with its name."""
    file = tmp_path / "x.yml"
    file.write_text(f"production: {SECRET}", encoding="utf-8")
    section = read_environment(file, "production")
    assert section.problems.lines == ["production: must be a mapping, not text"]
