"""What the pages of the documentation tell their reader to type, and a shell that types it.

* A `console` block shows commands after a prompt (`$ ` or `# `), and what they answer. If it shows any answer, a
  command that shows none must print nothing. `…` stands for anything in a line, alone in a line for any lines.
* A `shell` block is typed as a whole, and shows no answer.
* A command must succeed, unless `echo $?` comes next and shows how it ends.
* `<!-- not run: the reason -->` in the line before a block has it left out.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Final

from attrs import define, field, frozen

if TYPE_CHECKING:
    from collections.abc import Mapping

DOCS: Final = Path(__file__).parents[2] / "docs"

_BLOCK: Final = re.compile(
    r"(?:^ *<!-- not run: (?P<reason>.*?) -->\n)?"
    r"^(?P<indent> *)```(?P<language>console|shell)\n(?P<body>.*?)^ *```$",
    re.MULTILINE | re.DOTALL,
)
_HEADING: Final = re.compile(r"^## (.*)$", re.MULTILINE)


@frozen
class Command:
    """What is typed, and the lines that it must print; None where the page does not say."""

    text: str
    answer: tuple[str, ...] | None


@frozen(kw_only=True)
class Block:
    """A block of commands on a page."""

    page: str
    line: int
    section: str
    commands: tuple[Command, ...]
    not_run: str | None
    """Why it is not run; None where it is."""

    def __str__(self) -> str:
        """Return where it is."""
        return f"docs/{self.page}:{self.line}"


def blocks(page: Path) -> list[Block]:
    """Return what a page has its reader type."""
    text = page.read_text()
    found = []
    for match in _BLOCK.finditer(text):
        before = text[: match.start("indent")]
        body = re.sub(f"^{match['indent']}", "", match["body"], flags=re.MULTILINE)
        found.append(
            Block(
                page=page.name,
                line=before.count("\n") + 1,
                section=(_HEADING.findall(before) or [""])[-1],
                commands=_commands(body)
                if match["language"] == "console"
                else (Command(f"set -e\n{body}set +e", None),),
                not_run=match["reason"],
            )
        )
    return found


def _commands(body: str) -> tuple[Command, ...]:
    lines = body.splitlines()
    prompt = lines[0][:2]
    assert prompt in {"$ ", "# "}, f"a console block begins with a prompt, not with {lines[0]!r}"
    typed: list[tuple[str, list[str]]] = []
    for line in lines:
        if line.startswith(prompt):
            typed.append((line[2:], []))
        else:
            typed[-1][1].append(line)
    compared = any(answer for _, answer in typed)
    return tuple(Command(text, tuple(answer) if compared else None) for text, answer in typed)


def answers(expected: tuple[str, ...], actual: str) -> bool:
    """Tell whether a command has printed what a page shows."""
    parts = [r"(?:.*\n)*?" if line == "…" else f"{'.*'.join(map(re.escape, line.split('…')))}\n" for line in expected]
    return re.fullmatch("".join(parts), actual) is not None


@define
class Shell:
    """A shell in which the reader types, one block after the other."""

    environment: Mapping[str, str]
    directory: Path
    """For what it needs; must exist."""
    cwd: Path
    """Where the reader is."""
    instead: Mapping[str, str] = field(factory=dict)
    """What stands in for the names of a page: so a page names a place that is there once on a machine."""
    success: frozenset[str] = frozenset({"0"})
    """The exit statuses of a command that has done what it should."""
    transcript: list[str] = field(factory=list)
    """What was typed and printed."""
    _process: subprocess.Popen[str] = field(init=False, repr=False)
    _status: str = "0"

    def __attrs_post_init__(self) -> None:
        self._process = subprocess.Popen(
            ["bash", "--norc", "--noprofile"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=dict(self.environment),
            cwd=self.cwd,
            text=True,
        )

    def type(self, block: Block) -> None:
        """Type the commands of a block. Raises `AssertionError` where one does not do what the page says."""
        for number, command in enumerate(block.commands):
            printed = self._run(command.text)
            self.transcript.append(f"$ {command.text}\n{printed}")
            what = f"{block}: {command.text}\n{printed}"
            status = self._status or "(none)"
            following = block.commands[number + 1].text if number + 1 < len(block.commands) else ""
            assert self._status in self.success or following == "echo $?", f"exit status {status} of {what}"
            if command.answer is not None:
                shown = "\n".join(command.answer)
                assert answers(command.answer, printed), f"{what}\nis not what the page shows:\n{shown}"

    def end(self) -> None:
        """End the shell, and wait for it."""
        self._process.communicate()

    def _run(self, text: str) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        script, output = self.directory / "typed", self.directory / "printed"
        for name, place in self.instead.items():
            text = text.replace(name, place)
        script.write_text(f"{text}\n")
        self._process.stdin.write(f"(exit {self._status}); . {script} >{output} 2>&1 </dev/null; echo $?\n")
        self._process.stdin.flush()
        self._status = self._process.stdout.readline().strip()
        printed = output.read_text(errors="surrogateescape")
        for name, place in self.instead.items():
            printed = printed.replace(place, name)
        return printed
