"""The built-in codecs: what all must do, and what other programs make of theirs."""

from __future__ import annotations

import gzip
import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from gitlab_backup.errors import CorruptStreamError, StreamError, UsageError
from gitlab_backup.streams.blocks import BLOCK_SIZE, BlockSink
from gitlab_backup.streams.codec import NoneCodec, codec_for, codec_named, codec_names
from gitlab_backup.streams.gzip import GzipCodec
from gitlab_backup.streams.zstd import ZstdCodec

from .codec_conformance import (
    MIB,
    TEXT,
    CodecConformance,
    CompressingConformance,
    Memory,
    compressed,
    mixed,
    plain,
)

if TYPE_CHECKING:
    from gitlab_backup.streams.codec import Codec


class TestNone(CodecConformance):
    """No compression."""

    @pytest.fixture
    def codec(self) -> Codec:
        return NoneCodec()


class TestGzip(CompressingConformance):
    """gzip, by ISA-L and zlib."""

    @pytest.fixture
    def codec(self) -> Codec:
        return GzipCodec()

    @pytest.mark.parametrize("program", [("gzip", "-cd"), ("zcat",), ("gunzip", "-c")])
    @pytest.mark.parametrize("size", [0, 1, 5 * MIB // 2])
    def test_programs_read_it(self, codec: Codec, program: tuple[str, ...], size: int) -> None:
        """gzip's programs and Python's own reader read it as one stream."""
        data = mixed(size)
        output = compressed(codec, data)
        assert data == subprocess.run(program, input=output, check=True, capture_output=True).stdout
        assert data == gzip.decompress(output)
        assert b"" == subprocess.run(["gzip", "-t"], input=output, check=True, capture_output=True).stderr

    @pytest.mark.parametrize("option", ["-1", "-9"])
    def test_reads_what_gzip_made(self, codec: Codec, option: str) -> None:
        """Streams of gzip(1) are read, in one member or several."""
        data = mixed(5 * MIB // 2)
        output = subprocess.run(["gzip", "-c", option], input=data, check=True, capture_output=True).stdout
        assert data + data == plain(codec, output + output)

    def test_zeros_after_the_end(self, codec: Codec) -> None:
        """Padding with zeros is passed over, as gzip(1) does, however much of it."""
        assert TEXT == plain(codec, compressed(codec, TEXT) + bytes(MIB))

    def test_header_tells_nothing(self, codec: Codec) -> None:
        """No name and no time is kept: the flags and the modification time are zero (RFC 1952, 2.3)."""
        for level in codec.levels:
            assert b"\x1f\x8b\x08" + bytes(5) == compressed(codec, TEXT, level=level)[:8]

    def test_noise_is_stored(self, codec: Codec) -> None:
        """What does not compress grows by less than a thousandth."""
        data = os.urandom(4 * MIB)
        assert len(compressed(codec, data)) < len(data) * 1.001


class TestZstd(CompressingConformance):
    """Zstandard."""

    @pytest.fixture
    def codec(self) -> Codec:
        return ZstdCodec()

    @pytest.mark.parametrize("size", [0, 1, 5 * MIB // 2])
    def test_zstd_reads_it(self, codec: Codec, size: int) -> None:
        """zstd(1) reads it as one stream."""
        data = mixed(size)
        output = compressed(codec, data)
        assert data == subprocess.run(["zstd", "-dc"], input=output, check=True, capture_output=True).stdout

    def test_reads_what_zstd_made(self, codec: Codec) -> None:
        """Streams of zstd(1) are read, in one frame or several."""
        data = mixed(5 * MIB // 2)
        output = subprocess.run(["zstd", "-c"], input=data, check=True, capture_output=True).stdout
        assert data + data == plain(codec, output + output)

    def test_zeros_after_the_end(self, codec: Codec) -> None:
        """Zeros are no part of this format: zstd(1) refuses them, too."""
        with pytest.raises(CorruptStreamError):
            plain(codec, compressed(codec, TEXT) + bytes(10))


def test_codecs_are_found() -> None:
    """By name, and by the suffix of a file; an unknown suffix means no compression."""
    assert {"gzip", "zstd", "none"} <= set(codec_names())
    assert ["gzip", "zstd", "none"] == [codec_named(name).name for name in ("gzip", "zstd", "none")]
    files = ("uploads.tar.gz", "db/database.sql.zst", "uploads.tar", "gz")
    assert ["gzip", "zstd", "none", "none"] == [codec_for(name).name for name in files]


def test_unknown_codec() -> None:
    """The error names the codecs that there are."""
    with pytest.raises(UsageError, match="brotli") as caught:
        codec_named("brotli")
    assert "gzip" in str(caught.value.hint)


@pytest.mark.parametrize("threads", [0, 1])
def test_error_of_a_worker(threads: int) -> None:
    """What goes wrong in a thread of the pool is a `StreamError` of the writer."""

    def fail(_: object) -> bytes:
        raise MemoryError("no room")

    pool = ThreadPoolExecutor(threads) if threads else None
    writer = BlockSink(Memory(), fail, pool)

    def work() -> None:
        for _ in range(20):
            writer.write(bytes(BLOCK_SIZE))

    with pytest.raises(StreamError, match="no room"):
        work()
    writer.abort()
    if pool:
        pool.shutdown()
