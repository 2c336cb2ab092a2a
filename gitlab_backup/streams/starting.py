"""Starting a program: as whom, with which descriptors, and in words why it could not be started."""

from __future__ import annotations

import fcntl
import io
import os
import subprocess
import threading
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

from ..errors import ProgramError, ProgramNotFoundError
from .accounts import become, threads_can_change

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .accounts import Account
    from .process import Input, Program

PIPE_SIZE: Final = 1 << 20
"""Bytes that a pipe holds, and that are moved at once: the most that Linux allows any user (pipe(7))."""


def start(program: Program, stdin: Input, *, piped: bool) -> subprocess.Popen[bytes]:
    """Start a program with a pipe for its stderr, for `stdin` unless it is None or a raw file, for stdout if `piped`.

    Raises `ProgramNotFoundError`, and `ProgramError` where it cannot be run, or not as its account.
    """
    account = program.account if program.account is not None and program.account.uid != os.geteuid() else None

    def launch(forked_as: Account | None = None) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            program.arguments,
            env=dict(program.environment),
            cwd=program.directory,
            stdin=subprocess.DEVNULL if stdin is None else stdin if isinstance(stdin, io.FileIO) else subprocess.PIPE,
            stdout=subprocess.PIPE if piped else subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,
            user=forked_as.uid if forked_as else None,
            group=forked_as.gid if forked_as else None,
            extra_groups=forked_as.groups if forked_as else None,
        )

    with _failing(program, account):
        if account is None:
            child = launch()
        elif threads_can_change():
            child = _launched_by(account, launch)
        else:
            child = launch(account)
    for pipe in (child.stdin, child.stdout):
        if pipe is not None:
            # Larger pipes are faster ones; all those of a user together are limited (pipe(7)).
            with suppress(OSError):
                fcntl.fcntl(pipe.fileno(), fcntl.F_SETPIPE_SZ, PIPE_SIZE)
    return child


def _launched_by(account: Account, launch: Callable[[], subprocess.Popen[bytes]]) -> subprocess.Popen[bytes]:
    """Start a program in a thread that has become `account`.

    To change its user itself, a program has to be forked, which copies the page tables of this process: milliseconds
    for each. What only starts as the one who starts it need not be.
    """
    child: Future[subprocess.Popen[bytes]] = Future()

    def work() -> None:
        try:
            become(account)
            child.set_result(launch())
        except BaseException as error:  # noqa: BLE001 - it surfaces in the calling thread
            child.set_exception(error)

    threading.Thread(target=work, daemon=True).start()
    return child.result()


@contextmanager
def _failing(program: Program, account: Account | None) -> Iterator[None]:
    """Turn what a start raises into words."""
    path = program.arguments[0]
    whom = f" as user {account.name}" if account else ""
    try:
        yield
    except OSError as error:
        if program.directory is not None and not program.directory.is_dir():
            raise ProgramError(f"{path} cannot be run{whom} in {program.directory}: {error.strerror}") from error
        if isinstance(error, FileNotFoundError):
            raise ProgramNotFoundError(
                f"{path} not found", hint=f"Install {program.name}, or add its directory to PATH."
            ) from error
        hint = f"Check the rights on {path}, or run as root." if isinstance(error, PermissionError) else None
        raise ProgramError(f"{path} cannot be run{whom}: {error.strerror}", hint=hint) from error
