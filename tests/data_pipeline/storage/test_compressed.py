"""Damaged and concatenated compressed files, and lines longer than memory should hold."""

import gzip
import tracemalloc

import pytest
import zstandard

from data_pipeline.storage.compressed import (
    CorruptInputError,
    TruncatedInputError,
    read_chunks,
    split_lines,
)

TEXT = b"".join(b"line %d of a file that is to be compressed\n" % i for i in range(20_000))


def zst(data: bytes, **options) -> bytes:
    return zstandard.ZstdCompressor(write_checksum=True, **options).compress(data)


def content(path) -> bytes:
    return b"".join(read_chunks(path, chunk_bytes=1000))


@pytest.mark.parametrize(("suffix", "compress"), [(".gz", gzip.compress), (".zst", zst)])
def test_concatenated_members_and_frames_are_one_content(tmp_path, suffix, compress):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(compress(TEXT) + compress(b"") + compress(b"the end"))
    assert content(path) == TEXT + b"the end"


@pytest.mark.parametrize(("suffix", "compress"), [(".gz", gzip.compress), (".zst", zst)])
@pytest.mark.parametrize("frames", [1, 2])
def test_a_file_cut_anywhere_is_refused(tmp_path, suffix, compress, frames):
    path = tmp_path / f"a{suffix}"
    small = b"".join(b"%d " % i for i in range(60))
    before, last = compress(small) * (frames - 1), compress(small)
    for kept in range(1, len(last)):  # every cut, also inside the header and the checksum
        path.write_bytes(before + last[:kept])
        # One byte is not yet a gzip member: it could as well be garbage.
        kind = CorruptInputError if (suffix, kept) == (".gz", 1) else TruncatedInputError
        with pytest.raises(kind) as error:
            content(path)
        assert str(path) in str(error.value)
    path.write_bytes(before + last)
    assert content(path) == small * frames


@pytest.mark.parametrize(("suffix", "compress"), [(".gz", gzip.compress), (".zst", zst)])
def test_a_large_file_cut_in_the_middle_says_how_far_it_got(tmp_path, suffix, compress):
    path, data = tmp_path / f"a{suffix}", compress(TEXT)
    path.write_bytes(data[: len(data) // 2])
    got = bytearray()
    with pytest.raises(TruncatedInputError, match=r"after [0-9,]+ bytes of content") as error:
        for chunk in read_chunks(path):
            got += chunk
    assert TEXT.startswith(got)
    assert f"after {len(got):,} bytes" in str(error.value)


@pytest.mark.parametrize(("suffix", "compress"), [(".gz", gzip.compress), (".zst", zst)])
@pytest.mark.parametrize("garbage", [b"x", b"garbage after the end"])
def test_garbage_after_the_end_is_refused(tmp_path, suffix, compress, garbage):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(compress(TEXT) + garbage)
    with pytest.raises(CorruptInputError, match=path.name):
        content(path)


@pytest.mark.parametrize(("suffix", "compress"), [(".gz", gzip.compress), (".zst", zst)])
def test_a_changed_byte_is_refused(tmp_path, suffix, compress):
    path, data = tmp_path / f"a{suffix}", bytearray(compress(TEXT))
    data[-3] ^= 0xFF  # in the checksum or length at the end, where the content itself still reads
    path.write_bytes(data)
    with pytest.raises(CorruptInputError, match="is not valid"):
        content(path)


def test_zstd_frames_that_are_to_be_skipped_are_skipped(tmp_path):
    skipped = (0x184D2A53).to_bytes(4, "little") + (5).to_bytes(4, "little") + b"hello"
    path = tmp_path / "a.zst"
    path.write_bytes(skipped + zst(TEXT) + skipped)
    assert content(path) == TEXT
    path.write_bytes(zst(TEXT) + skipped[:-1])
    with pytest.raises(TruncatedInputError):
        content(path)


def test_zstd_blocks_of_one_repeated_byte_are_walked(tmp_path):
    path, data = tmp_path / "a.zst", zst(b"x" * (1 << 20))
    path.write_bytes(data)
    assert content(path) == b"x" * (1 << 20)
    path.write_bytes(data[:-1])
    with pytest.raises(TruncatedInputError):
        content(path)


def test_zstd_with_a_long_window_is_read(tmp_path):
    parameters = zstandard.ZstdCompressionParameters(window_log=30, write_checksum=True)
    path = tmp_path / "a.zst"
    compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    path.write_bytes(compressor.compress(TEXT) + compressor.flush())
    assert content(path) == TEXT


@pytest.mark.parametrize("chunk_bytes", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize("data", [b"", b"\n", b"a", b"a\n", b"\n\na\r\n\nbb\n", b"abcdefgh\ni\n\n"])
def test_lines_and_offsets_do_not_depend_on_the_chunks(data, chunk_bytes):
    chunks = [data[i : i + chunk_bytes] for i in range(0, len(data), chunk_bytes)]
    lines = list(split_lines(chunks))
    expected = data.split(b"\n")
    if not expected[-1]:
        expected.pop()
    assert [line for _, line, _ in lines] == expected
    for offset, line, length in lines:
        assert data[offset : offset + length] == line


def test_a_line_too_long_is_never_held_in_memory():
    def chunks():
        yield b"before\n"
        for _ in range(50):
            yield b"x" * (1 << 20)
        yield b"\nafter\n"

    tracemalloc.start()
    try:
        lines = list(split_lines(chunks(), max_bytes=1 << 20))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert [(line[:6], length) for _, line, length in lines] == [
        (b"before", 6),
        (b"xxxxxx", 50 << 20),
        (b"after", 5),
    ]
    assert len(lines[1][1]) == 4096
    assert peak < 8 << 20
