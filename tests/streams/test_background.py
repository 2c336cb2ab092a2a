"""A stage in a thread of its own: everything in order, bounded, and every error heard of."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest
from attrs import define, field

from gitlab_backup.streams.background import BackgroundSink

if TYPE_CHECKING:
    from gitlab_backup.streams.sink import Buffer


@define(eq=False)
class Slow:
    """Takes a piece only when the gate is open; fails at one of them."""

    fails_at: int | None = None
    gate: threading.Event = field(factory=threading.Event)
    taken: list[bytes] = field(factory=list)
    ended: list[str] = field(factory=list)

    def write(self, data: Buffer, /) -> None:
        self.gate.wait()
        if len(self.taken) == self.fails_at:
            raise OSError(28, "No space left on device")
        self.taken.append(bytes(data))

    def finish(self) -> None:
        self.ended.append("finished")

    def abort(self) -> None:
        self.ended.append("aborted")


def test_order() -> None:
    """All of it arrives, in order, before the end."""
    sink = Slow()
    sink.gate.set()
    background = BackgroundSink(sink)
    pieces = [bytes([number]) * number for number in range(100)]
    for piece in pieces:
        background.write(piece)
    background.finish()
    assert (pieces, ["finished"]) == (sink.taken, sink.ended)


def test_back_pressure() -> None:
    """Whoever writes waits, where the other side does not take anything."""
    sink = Slow()
    background = BackgroundSink(sink)
    written: list[int] = []

    def write() -> None:
        for number in range(50):
            background.write(b"x")
            written.append(number)

    writer = threading.Thread(target=write)
    writer.start()
    writer.join(0.2)
    assert writer.is_alive()
    assert len(written) < 10
    sink.gate.set()
    writer.join()
    background.finish()
    assert 50 == len(sink.taken)


@pytest.mark.parametrize("fails_at", [0, 1, 30])
def test_errors(fails_at: int) -> None:
    """An error of the other side surfaces, at the latest at the end, and nothing counts as finished."""
    sink = Slow(fails_at=fails_at)
    sink.gate.set()
    background = BackgroundSink(sink)

    def write() -> None:
        for _ in range(31):
            background.write(b"x")
        background.finish()

    with pytest.raises(OSError, match="No space left"):
        write()
    background.abort()
    assert (fails_at, ["aborted"]) == (len(sink.taken), sink.ended)


def test_abort_waits_for_nothing_more() -> None:
    """What still waits is dropped; the thread is gone afterwards."""
    sink = Slow()
    background = BackgroundSink(sink)
    before = threading.active_count()
    for _ in range(4):
        background.write(b"x")
    opener = threading.Timer(0.05, sink.gate.set)
    opener.start()
    background.abort()
    opener.join()
    assert len(sink.taken) <= 1
    assert ["aborted"] == sink.ended
    assert threading.active_count() <= before


def test_nothing_at_all() -> None:
    """A stream without data needs no thread."""
    sink = Slow()
    BackgroundSink(sink).finish()
    assert ["finished"] == sink.ended
