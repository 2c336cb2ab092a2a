"""The one place where an error becomes a message, a hint and an exit status."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from attrs import frozen

from gitlab_backup.errors import CancelledError, ExitStatus, GitLabBackupError

from .output import OutputError, complain, write_json
from .signals import Stopped
from .text import escape

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .documents import Document

_STOPPED = {ExitStatus.INTERRUPTED: "interrupted", ExitStatus.TERMINATED: "terminated"}


@frozen
class Failure:
    """What an error means to the one who started the command."""

    message: str
    hint: str | None
    exit_status: int


def explain(error: BaseException) -> Failure:
    """Say what an error means. What nobody expected is a defect of the program, and has status 1."""
    if isinstance(error, CancelledError):
        return Failure(_STOPPED.get(error.exit_status, error.message), error.hint, error.exit_status)
    if isinstance(error, GitLabBackupError):
        return Failure(error.message, error.hint, error.exit_status)
    if isinstance(error, Stopped):
        return Failure(_STOPPED[error.status], None, error.status)
    if isinstance(error, KeyboardInterrupt):
        return Failure(_STOPPED[ExitStatus.INTERRUPTED], None, ExitStatus.INTERRUPTED)

    from typer import TyperException

    if isinstance(error, TyperException):
        from . import usage

        return Failure(*usage.explain(error), error.exit_code)
    return Failure(
        f"internal error: {type(error).__name__}: {error}",
        "This is a defect of gitlab-backup-cli. Run it with --debug before the command, and report what it prints.",
        ExitStatus.FAILED,
    )


@contextmanager
def document_of_failure(make: Callable[[BaseException], Document] | None) -> Iterator[None]:
    """Print the document that `make` makes of an error which ends the block; the error goes on to the boundary.

    So whoever reads the document gets one, whatever happens, and people get the message.
    """
    try:
        yield
    except OutputError:
        raise
    except BaseException as error:
        if make is not None:
            write_json(make(error))
        raise


def boundary(command: Callable[[], int], *, debug: bool) -> int:
    """Run a command, print the error that ends it, and return its exit status."""
    try:
        return command()
    except BaseException as error:  # noqa: BLE001 - nothing may pass: a traceback is no message, and its status says nothing
        if isinstance(error, SystemExit):
            return error.code if isinstance(error.code, int) else ExitStatus.FAILED
        if debug:
            import traceback

            complain(escape("".join(traceback.format_exception(error)), lines=True))
        failure = explain(error)
        if not (isinstance(error, OutputError) and error.closed):
            complain(_text(failure))
        return failure.exit_status


def _text(failure: Failure) -> str:
    hint = f"hint: {escape(failure.hint, lines=True)}\n" if failure.hint else ""
    return f"error: {escape(failure.message, lines=True)}\n{hint}"
