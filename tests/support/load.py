"""Changes a file tree while it is read, and knows afterwards what each file has been.

python -m tests.support.load DIRECTORY SEED SECONDS

makes a tree in the empty DIRECTORY, prints a line, changes the tree until its standard input ends or the time is over,
and prints its history as JSON.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import select
import subprocess
import sys
import time
from collections import defaultdict
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from attrs import define, field, frozen

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_LARGE = 1_300_000
"""Bytes: too many to be read at once by an archiver that does so with small files."""
_MOST = 2_000_000


@define(eq=False)
class _File:
    """A file with all of its names, relative to the tree."""

    content: bytes
    names: set[str] = field(factory=set)


@frozen
class History:
    """What happened to a tree."""

    stable: dict[str, str]
    """The files that nobody touched, nor a directory above them, and their digests."""
    states: dict[str, list[str]]
    """The digests of all that was ever to be found under a name. No last name of a path is given out twice."""

    def differences(self, tree: Path, named: set[str]) -> list[str]:
        """Say what is wrong with a copy of the tree, in which `named` are known not to be right."""
        found = {}
        for directory, _, names in os.walk(tree):
            for name in names:
                path = os.path.join(directory, name)  # noqa: PTH118 - as os.walk does
                with open(path, "rb") as file:  # noqa: PTH123
                    found[os.path.relpath(path, tree)] = hashlib.file_digest(file, "sha256").hexdigest()
        # A directory that was moved while it was read is found under its old name with what was in it then.
        known: defaultdict[str, set[str]] = defaultdict(set)
        for name, states in self.states.items():
            known[name.rpartition("/")[2]].update(states)
        wrong = [f"{name} was not touched, and differs" for name in self.stable if self.stable[name] != found.get(name)]
        for name, digest in found.items():
            if digest not in known[name.rpartition("/")[2]] and name not in named:
                wrong.append(f"{name} was never like that")
        return wrong


class Load:
    """A tree, and what is done to it: the same for the same seed."""

    def __init__(self, directory: Path, seed: int, *, files: int = 120, large: int = 2) -> None:
        """Make the tree in an empty directory."""
        self._top = str(directory)
        self._chance = random.Random(seed)
        self._files: dict[str, _File] = {}
        self._directories: set[str] = set()
        self._states: defaultdict[str, set[str]] = defaultdict(set)
        self._touched: set[str] = set()
        self._quiet: set[str] = set()
        self._number = 0
        self.operations = 0
        """How many have been done."""
        for _ in range(files // 16):
            self._make_directory()
        # These stay where they are.
        self._fixed = set(self._directories)
        for _ in range(files // 8):
            self._make_directory()
        for number in range(files):
            self._make_file(_LARGE if number < large else 0)
        for _ in range(files // 12):
            self._link()
        self._initial = {name: _digest(file.content) for name, file in self._files.items()}
        self._touched.clear()
        # Some are left alone, also where all around them changes.
        self._quiet = {name for name in self._files if self._chance.random() < 0.4}
        self._ways: list[Callable[[], None]] = [
            self._append, self._append, self._truncate, self._rewrite, self._rewrite, self._rewrite_unseen,
            self._replace, self._rename, self._rename, self._delete, self._make_file, self._make_file, self._link,
            self._make_directory, self._rename_directory,
        ]  # fmt: skip

    def step(self) -> None:
        """Do one thing."""
        self.operations += 1
        self._chance.choice(self._ways)()

    def history(self) -> History:
        """Return what happened so far."""
        return History(
            stable={name: digest for name, digest in self._initial.items() if name not in self._touched},
            states={name: sorted(states) for name, states in self._states.items()},
        )

    # What is done. What a file is about to be is noted before.

    def _path(self, name: str) -> str:
        return f"{self._top}/{name}"

    def _note(self, name: str, content: bytes) -> None:
        self._touched.add(name)
        self._states[name].add(_digest(content))

    def _pick(self) -> tuple[str, _File] | None:
        names = sorted(name for name, file in self._files.items() if not self._quiet & file.names)
        # Reading a large file takes longest: that is when it should change.
        large = [name for name in names if len(self._files[name].content) > _LARGE // 2]
        if large and self._chance.random() < 1 / 3:
            names = large
        if not names:
            return None
        name = self._chance.choice(names)
        return name, self._files[name]

    def _new_name(self) -> str:
        self._number += 1
        above = self._chance.choice(["", *(f"{name}/" for name in sorted(self._directories))])
        return f"{above}{self._chance.randrange(1000):03d}-{self._number}"

    def _becomes(self, file: _File, *states: bytes) -> None:
        for state in states:
            for name in file.names:
                self._note(name, state)
        file.content = states[-1]

    def _bytes(self, size: int | None = None) -> bytes:
        size = self._chance.choice((1, 511, 512, 5000, 60_000)) if size is None else size
        return (self._chance.randbytes(1000) * (size // 1000 + 1))[:size]

    def _append(self) -> None:
        if (picked := self._pick()) and len(picked[1].content) < _MOST:
            name, file = picked
            more = self._bytes()
            self._becomes(file, file.content + more)
            self._write(name, more, os.O_APPEND)

    def _truncate(self) -> None:
        if picked := self._pick():
            name, file = picked
            size = self._chance.randrange(len(file.content) + 1)
            self._becomes(file, file.content[:size])
            os.truncate(self._path(name), size)

    def _rewrite(self) -> None:
        if picked := self._pick():
            name, file = picked
            content = self._bytes(len(file.content))
            self._becomes(file, b"", content)
            self._write(name, content, os.O_TRUNC)

    def _rewrite_unseen(self) -> None:
        """In place, and with the time set back."""
        if picked := self._pick():
            name, file = picked
            content = self._bytes(len(file.content))
            self._becomes(file, content)
            status = os.stat(self._path(name))  # noqa: PTH116
            self._write(name, content, 0)
            os.utime(self._path(name), ns=(status.st_atime_ns, status.st_mtime_ns))

    def _replace(self) -> None:
        if picked := self._pick():
            name, file = picked
            content = self._bytes()
            new = self._new_name()
            self._note(new, b"")
            self._note(new, content)
            self._note(name, content)
            self._write(new, content, os.O_CREAT | os.O_EXCL)
            os.replace(self._path(new), self._path(name))  # noqa: PTH105
            file.names.discard(name)
            self._files[name] = _File(content, {name})

    def _rename(self) -> None:
        if picked := self._pick():
            name, file = picked
            new = self._new_name()
            self._note(new, file.content)
            self._touched.add(name)
            os.rename(self._path(name), self._path(new))  # noqa: PTH104
            file.names.remove(name)
            file.names.add(new)
            self._files[new] = self._files.pop(name)

    def _delete(self) -> None:
        if picked := self._pick():
            name, file = picked
            self._touched.add(name)
            os.unlink(self._path(name))  # noqa: PTH108
            file.names.remove(name)
            del self._files[name]

    def _make_file(self, size: int | None = None) -> None:
        name, content = self._new_name(), self._bytes(size or None)
        self._note(name, b"")
        self._note(name, content)
        self._write(name, content, os.O_CREAT | os.O_EXCL)
        self._files[name] = _File(content, {name})

    def _link(self) -> None:
        if picked := self._pick():
            name, file = picked
            new = self._new_name()
            self._note(new, file.content)
            self._touched.add(name)
            os.link(self._path(name), self._path(new))
            file.names.add(new)
            self._files[new] = file

    def _make_directory(self) -> None:
        name = self._new_name()
        os.mkdir(self._path(name))  # noqa: PTH102
        self._directories.add(name)

    def _rename_directory(self) -> None:
        name = self._chance.choice(sorted(self._directories - self._fixed))
        new = self._new_name()
        if f"{new}/".startswith(f"{name}/"):
            return
        moved = [each for each in self._files if each.startswith(f"{name}/")]
        for each in moved:
            self._touched.add(each)
            self._note(new + each[len(name) :], self._files[each].content)
        os.rename(self._path(name), self._path(new))  # noqa: PTH104
        for each in moved:
            file, to = self._files.pop(each), new + each[len(name) :]
            self._files[to] = file
            file.names.remove(each)
            file.names.add(to)
        self._directories = {
            new + each[len(name) :] if f"{each}/".startswith(f"{name}/") else each for each in self._directories
        }

    def _write(self, name: str, content: bytes, flags: int) -> None:
        fd = os.open(self._path(name), os.O_WRONLY | flags, 0o640)
        try:
            view = memoryview(content)
            while view:
                view = view[os.write(fd, view) :]
        finally:
            os.close(fd)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@contextmanager
def running(directory: Path, seed: int, *, seconds: float = 20) -> Iterator[Callable[[], History]]:
    """Have another process make and change a tree; what is handed out ends that and returns the history."""
    command = [sys.executable, "-m", "tests.support.load", str(directory), str(seed), str(seconds)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def end() -> History:
        out, _ = process.communicate()
        if process.returncode:
            raise AssertionError(f"the load failed: {process.returncode}")
        return History(**json.loads(out))

    try:
        assert process.stdout is not None
        process.stdout.readline()
        yield end
    finally:
        process.kill()
        process.communicate() if process.stdin and not process.stdin.closed else process.wait()


def main(directory: str, seed: str, seconds: str) -> None:
    """Make a tree, and change it until told to stop."""
    from pathlib import Path

    load = Load(Path(directory), int(seed), files=400, large=4)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    until = time.monotonic() + float(seconds)
    while time.monotonic() < until and not select.select([sys.stdin], [], [], 0)[0]:
        load.step()
    history: dict[str, Any] = {"stable": load.history().stable, "states": load.history().states}
    sys.stdout.write(json.dumps(history))


if __name__ == "__main__":
    main(*sys.argv[1:])
