"""Reading ahead: what comes out is what went in, errors come in their place, and nothing is left when it is closed."""

from __future__ import annotations

import io
import os
import threading
from typing import cast

import pytest

from gitlab_backup.streams.ahead import read_ahead

DATA = os.urandom((9 << 20) + 12_345)


class Failing(io.BytesIO):
    """Data, and then an error."""

    def read(self, size: int | None = -1, /) -> bytes:
        if data := super().read(size):
            return data
        raise ValueError("the end of it is broken")


def threads() -> int:
    """Return how many threads there are that read ahead."""
    return sum(thread.name == "read ahead" for thread in threading.enumerate())


@pytest.mark.parametrize("size", [1, 7, 4096, 1 << 20, 3 << 20, -1])
def test_all_of_it_in_order(size: int) -> None:
    """In pieces of any size, nothing is lost and nothing comes twice; the end stays the end."""
    data = DATA[: 10_000 if size == 1 else len(DATA)]
    with read_ahead(io.BytesIO(data)) as stream:
        assert data == b"".join(iter(lambda: stream.read(size), b""))
        assert stream.read(1) == b""
    assert threads() == 0


def test_an_error_comes_after_what_was_before_it() -> None:
    """It is raised when the data before it were read, and again whenever one reads on."""
    with read_ahead(cast("io.BytesIO", Failing(DATA))) as stream:
        assert DATA == stream.read(len(DATA))
        for _ in range(2):
            with pytest.raises(ValueError, match="broken"):
                stream.read(1)


@pytest.mark.parametrize("read", [0, 1, 2 << 20])
def test_closed_before_the_end(read: int) -> None:
    """The source is closed, the thread is gone, and no more than a few pieces were read in vain."""
    source = io.BytesIO(bytes(64 << 20))
    stream = read_ahead(source)
    stream.read(read)
    before = source.tell()
    stream.close()
    assert source.closed
    assert threads() == 0
    assert before <= read + (8 << 20)
