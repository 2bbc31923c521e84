"""Compressed text: the bytes that are in a gzip or zstd file, block by block."""

import io
import zlib
from collections.abc import Iterable, Iterator
from itertools import chain

import pyarrow as pa

from csv_io.allowance import Allowance
from csv_io.errors import TableError

BLOCK_BYTES = 2**20
PIECE_BYTES = 2**16
GZIP_START, ZSTD_STARTS = b"\x1f\x8b", (b"\x28\xb5\x2f\xfd", b"\x2a\x4d\x18")
GZIP_WINDOW = zlib.MAX_WBITS | 16  # with gzip's header and checksum

CUT_OFF = "it ends in the middle of its packed text; it was cut off, so send it again"
DAMAGED = "its packed text is damaged; send it again"


def unpacked_gzip(blocks: Iterable[bytes], allowance: Allowance) -> Iterator[bytes]:
    """Give the text of all members of a gzip file, one after another.

    Zeros after the last member, which tapes and block devices leave, are passed over.

    Raises:
        TableError: it is not a gzip file, damaged, cut off, too large, or something else stands
            behind it.
    """
    source = _pieces(blocks)
    packed = _start(source, len(GZIP_START))
    if not packed.startswith(GZIP_START):
        raise _not_packed(packed, "gzip", ".gz")
    while packed:
        member = zlib.decompressobj(GZIP_WINDOW)
        while not member.eof:
            try:
                text = member.decompress(packed, BLOCK_BYTES)
            except zlib.error:
                raise TableError(DAMAGED) from None
            allowance.take(len(text))
            if text:
                yield text
            packed = member.unconsumed_tail
            if not (packed or text or member.eof) and not (packed := next(source, b"")):
                raise TableError(CUT_OFF)
        packed = _next_member(member.unused_data, source)


def _pieces(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """Cut blocks small, since what is left of a piece is copied for each block of text."""
    for block in blocks:
        for start in range(0, len(block), PIECE_BYTES):
            yield block[start : start + PIECE_BYTES]


def _next_member(packed: bytes, source: Iterator[bytes]) -> bytes:
    """Pass over zeros, and see that another member follows, or the end."""
    packed = packed.lstrip(b"\0")
    while len(packed) < len(GZIP_START) and (more := next(source, b"")):
        packed = (packed + more).lstrip(b"\0")
    if packed and not packed.startswith(GZIP_START):
        raise TableError("after its packed text stands something else; send it again")
    return packed


def unpacked_zstd(blocks: Iterable[bytes], allowance: Allowance) -> Iterator[bytes]:
    """Give the text of all frames of a zstd file, one after another.

    Raises:
        TableError: it is not a zstd file, damaged, cut off or too large.
    """
    source = iter(blocks)
    start = _start(source, 4)
    if not start.startswith(ZSTD_STARTS[0]) and start[1:4] != ZSTD_STARTS[1]:
        raise _not_packed(start, "zstd", ".zst")
    stream = pa.PythonFile(Blocks(chain([start], source)), mode="r")
    with pa.CompressedInputStream(stream, "zstd") as packed:
        while text := _read(packed):
            allowance.take(len(text))
            yield text


def _read(packed: pa.CompressedInputStream) -> bytes:
    try:
        text: bytes = packed.read(BLOCK_BYTES)
    except OSError as error:  # Arrow's own; what the file system refuses is an UnreadableError
        if "Truncated" in str(error):
            raise TableError(CUT_OFF) from None
        if "memory" in str(error):
            raise TableError("it is packed with a window of over 128 MB (zstd --long)") from None
        if "Dictionary" in str(error):
            raise TableError("it is packed with a dictionary; pack it without one") from None
        raise TableError(DAMAGED) from None
    return text


class Blocks(io.RawIOBase):
    """Blocks of bytes as a stream, for readers that want one."""

    def __init__(self, blocks: Iterator[bytes]) -> None:
        super().__init__()
        self._blocks = blocks
        self._left = memoryview(b"")

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        """Read at most so many bytes; none at the end."""
        if not self._left:
            self._left = memoryview(next(self._blocks, b""))
        size = len(self._left) if size < 0 else size
        text, self._left = self._left[:size], self._left[size:]
        return bytes(text)


def _start(source: Iterator[bytes], size: int) -> bytes:
    start = b""
    while len(start) < size and (block := next(source, b"")):
        start += block
    return start


def _not_packed(start: bytes, kind: str, ending: str) -> TableError:
    if not start:
        return TableError("the file is empty")
    return TableError(f"its name ends with {ending}, but it is not a {kind} file; rename it")
