"""What every codec must do. Subclass `CodecConformance` with a fixture `codec` to test one of your own."""

from __future__ import annotations

import io
import random
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, ClassVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gitlab_backup.errors import CorruptStreamError, StreamError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from gitlab_backup.streams.codec import Codec
    from gitlab_backup.streams.sink import Buffer

MIB = 1 << 20
TEXT = b"INSERT INTO notes VALUES (1, 'a line of text', NULL);\n"


class Memory:
    """Keeps what it gets, and how it ended."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.ends: list[str] = []

    def write(self, data: Buffer, /) -> None:
        self.data += data

    def finish(self) -> None:
        self.ends.append("finish")

    def abort(self) -> None:
        self.ends.append("abort")


class Full(Memory):
    """Takes nothing."""

    def write(self, data: Buffer, /) -> None:  # noqa: ARG002
        raise StreamError("full")


class HeldPool(ThreadPoolExecutor):
    """A pool that starts nothing before it is let go, and knows the most that ever waited in it."""

    def __init__(self) -> None:
        super().__init__(1)
        self.go = threading.Event()
        self.submitted = 0

    def submit(self, fn: Callable[..., object], /, *args: object, **kwargs: object) -> Future[object]:  # type: ignore[override]
        self.submitted += 1
        return super().submit(self._held, fn, *args, **kwargs)

    def _held(self, fn: Callable[..., object], /, *args: object, **kwargs: object) -> object:
        self.go.wait()
        return fn(*args, **kwargs)


def mixed(size: int) -> bytes:
    """Return half text, half noise: what compresses and what does not."""
    noise = random.Random(size).randbytes(size // 2)
    return (TEXT * (size // len(TEXT)))[: size - len(noise)] + noise


def compressed(codec: Codec, data: bytes, *, level: int | None = None, pool: ThreadPoolExecutor | None = None) -> bytes:
    """Return `data` as `codec` compresses it in one write."""
    sink = Memory()
    writer = codec.writer(sink, level=level, pool=pool)
    writer.write(data)
    writer.finish()
    assert ["finish"] == sink.ends
    return bytes(sink.data)


def plain(codec: Codec, data: bytes) -> bytes:
    """Return what `data` becomes again."""
    return codec.reader(io.BytesIO(data)).read()


class CodecConformance:
    """The promises of the protocol `Codec`."""

    large: ClassVar[int] = 12 * MIB
    """Bytes that are many blocks. Less for a codec that is slow, and does not work in blocks."""

    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.differing_executors])
    @given(chunks=st.lists(st.binary(max_size=2000), max_size=8), sizes=st.lists(st.integers(1, 700), min_size=1))
    def test_round_trip(self, codec: Codec, chunks: list[bytes], sizes: list[int]) -> None:
        """Whatever goes in, in whatever pieces, comes out, in whatever pieces."""
        sink = Memory()
        writer = codec.writer(sink)
        for chunk in chunks:
            writer.write(chunk)
        writer.finish()
        reader = codec.reader(io.BytesIO(bytes(sink.data)))
        output = b"".join(reader.read(size) for size in sizes) + reader.read()
        assert b"".join(chunks) == output

    def test_levels(self, codec: Codec) -> None:
        """Every level round-trips; any other is refused before anything is written."""
        data = mixed(min(3 * MIB // 2, self.large))
        for level in (None, *codec.levels):
            assert data == plain(codec, compressed(codec, data, level=level)), level
        for level in (codec.levels.start - 1, codec.levels.stop):
            with pytest.raises(UsageError):
                codec.writer(Memory(), level=level)

    def test_pool_makes_no_difference(self, codec: Codec) -> None:
        """The bytes are the same with and without threads, and every time."""
        data = mixed(self.large)
        with ThreadPoolExecutor(2) as pool:
            assert compressed(codec, data) == compressed(codec, data, pool=pool)

    def test_many_writers_share_one_thread(self, codec: Codec) -> None:
        """A pool that is too small makes writers slow, but holds none of them up for ever."""
        data = mixed(self.large)
        with ThreadPoolExecutor(1) as pool, ThreadPoolExecutor(6) as writers:
            results = [writers.submit(compressed, codec, data, pool=pool) for _ in range(6)]
            assert {True} == {plain(codec, result.result()) == data for result in results}

    def test_memory_is_bounded(self, codec: Codec) -> None:
        """A writer whose pool does nothing waits, instead of taking more and more."""
        pool, written = HeldPool(), threading.Event()

        def write() -> None:
            writer = codec.writer(Memory(), pool=pool)
            for _ in range(64):
                writer.write(bytes(MIB))
            writer.finish()
            written.set()

        thread = threading.Thread(target=write)
        thread.start()
        early = written.wait(0.3)
        submitted = pool.submitted
        pool.go.set()
        thread.join()
        pool.shutdown()
        assert submitted <= 16
        # Only one that does all the work itself can have come to its end meanwhile.
        assert not early or pool.submitted == 0

    def test_abort_does_not_wait(self, codec: Codec) -> None:
        """`abort` gives up what is pending, aborts the sink, and does not wait for a pool that is busy."""
        pool, sink = HeldPool(), Memory()
        writer = codec.writer(sink, pool=pool)
        for _ in range(3):
            writer.write(bytes(MIB))
        writer.abort()
        pool.go.set()
        pool.shutdown()
        assert {"abort"} == set(sink.ends)

    @pytest.mark.parametrize("threads", [0, 1])
    def test_error_of_the_sink(self, codec: Codec, threads: int) -> None:
        """What the sink raises comes out of `write` or `finish`."""
        pool = ThreadPoolExecutor(threads) if threads else None
        writer = codec.writer(Full(), pool=pool)

        def work() -> None:
            for _ in range(20):
                writer.write(bytes(MIB))
            writer.finish()

        with pytest.raises(StreamError, match="full"):
            work()
        writer.abort()
        if pool:
            pool.shutdown()


class CompressingConformance(CodecConformance):
    """What codecs promise besides that have a format of their own: damage is noticed."""

    def test_cut_is_noticed(self, codec: Codec) -> None:
        """A stream that ends too early is corrupt, wherever that is, also where nothing is left of it."""
        data = compressed(codec, mixed(600))
        for end in range(len(data)):
            with pytest.raises(CorruptStreamError):
                plain(codec, data[:end])

    def test_large_cut_is_noticed(self, codec: Codec) -> None:
        """The same, in the last block of many."""
        data = compressed(codec, mixed(5 * MIB // 2))
        for end in (len(data) - 1, len(data) - 9, len(data) - 1000):
            with pytest.raises(CorruptStreamError, match="byte"):
                plain(codec, data[:end])

    def test_flipped_bits_never_give_wrong_bytes(self, codec: Codec) -> None:
        """A bit that has changed is noticed, or did not matter."""
        original = mixed(400)
        data = compressed(codec, original)
        noticed = 0
        for position in range(len(data) * 8):
            damaged = bytearray(data)
            damaged[position // 8] ^= 1 << position % 8
            try:
                assert original == plain(codec, bytes(damaged)), position
            except CorruptStreamError:
                noticed += 1
        assert noticed > len(data)

    def test_garbage_after_the_end_is_noticed(self, codec: Codec) -> None:
        """Anything else after the end is corrupt."""
        for tail in (b"x", b"garbage" * 10, b"\0x"):
            with pytest.raises(CorruptStreamError):
                plain(codec, compressed(codec, TEXT) + tail)
