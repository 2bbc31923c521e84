"""Bytes in, UTF-8 text out: what kind of file it is, its encoding, and where its text ends."""

import codecs
import re
from collections.abc import Iterable, Iterator
from itertools import chain

from csv_io.errors import TableError, WrongEncodingError

BINARY = (
    (b"\x1f\x8b", "a gzip archive"),
    (b"PK\x03\x04", "a zip archive or an Excel workbook (.xlsx)"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Excel workbook (.xls)"),
    (b"PAR1\x15", "a Parquet file"),
    (b"ARROW1", "an Arrow file"),
    (b"Obj\x01", "an Avro file"),
    (b"BZh91AY&SY", "a bzip2 archive"),
    (b"\xfd7zXZ\x00", "an xz archive"),
    (b"\x28\xb5\x2f\xfd", "a zstd archive"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (b"SQLite format 3\x00", "an SQLite database"),
    (b"%PDF-", "a PDF document"),
    (b"{\\rtf", "an RTF document"),
    (b"\x89PNG\r\n", "a PNG image"),
)
"""What files of other kinds begin with."""

NAMED_SO = {
    "a gzip archive": ".csv.gz",
    "a zstd archive": ".csv.zst",
    "a zip archive or an Excel workbook (.xlsx)": ".xlsx, if it is a workbook,",
    "a Parquet file": ".parquet",
}
"""The endings of the names of kinds that can be read."""

TAR_MARK, TAR_PLACE = b"ustar", 257

TEXTUAL = (
    (re.compile(r"\s*<(?:!doctype|html|head|body)\b", re.IGNORECASE), "an HTML page"),
    (re.compile(r"\s*<(?:\?xml\b|!--)", re.IGNORECASE), "an XML document"),
    (re.compile(r"version https://git-lfs\.github\.com/"), "a Git LFS pointer"),
    (re.compile(r'\s*(?:\{\s*["}]|\[\s*["{\[\]])'), "a JSON document"),
)
"""The same for texts. A header such as `[id],[name]` or `<DATE>,<OPEN>` is none of them."""

MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
"""Byte order marks. As on the web (encoding.spec.whatwg.org), a mark overrides what was told."""

MARK = "\ufeff"
MISREAD_MARK = "ï»¿"  # UTF-8's mark, read as cp1252 and saved again
START_BYTES = 4096
DELIMITERS = b",;\t|"
END_MARK = b"\x1a"  # ^Z: where texts end in CP/M and DOS
HELD_BYTES = 2**16  # of blanks after an end mark; with more, it is text like any other


class Decoder:
    """The text of a file as UTF-8, without byte order marks and end mark.

    Raises TableError while iterating; UnicodeError where it is not in the encoding.
    """

    def __init__(self, blocks: Iterable[bytes], encoding: str) -> None:
        self._blocks = iter(blocks)
        self.encoding = encoding  # in use, once the iteration has begun
        self.is_told = False  # by a byte order mark
        self.has_end_mark = False
        self.notes: list[str] = []

    def __iter__(self) -> Iterator[bytes]:
        held = b""
        for text in self._texts():
            held += text
            mark = held.find(END_MARK, len(held.rstrip(END_MARK + b"\r\n ")))
            if mark < 0 or len(held) - mark > HELD_BYTES:
                mark = len(held)
            yield held[:mark]
            held = held[mark:]
        self.has_end_mark = bool(held)
        if held:
            self.notes.append("the end mark ^Z after its last line was left out")

    def _texts(self) -> Iterator[bytes]:
        start = self._start()
        self._find_encoding(start)
        decoder = codecs.getincrementaldecoder(self.encoding)()
        has_begun = False
        for block in chain([start], self._blocks, [b""]):
            text = decoder.decode(block, final=not block)
            if not has_begun:
                text = text.lstrip(MARK)
                refuse_text(text)
                has_begun = bool(text)
            yield text.encode()

    def _start(self) -> bytes:
        start = b""
        while len(start) < START_BYTES and (block := next(self._blocks, b"")):
            start += block
        return start

    def _find_encoding(self, start: bytes) -> None:
        """Obey a byte order mark, and refuse what is no text."""
        refuse_binary(start)
        marked = next((name for mark, name in MARKS if start.startswith(mark)), "")
        told = codecs.lookup(self.encoding).name
        if marked:
            self.is_told = True
            if not marked.startswith(told.removesuffix("-sig")):
                self.notes.append(f"read as {marked}, by its byte order mark, not as {told}")
                self.encoding = marked
        elif (guess := unmarked_utf16(start)) and guess != told and told[:6] != "utf-32":
            raise WrongEncodingError(f"it looks like {guess} without a byte order mark")


class OwnText(Decoder):
    """The text of one of our own files: UTF-8, in which no beginning and no end means anything."""

    def __init__(self, blocks: Iterable[bytes]) -> None:
        super().__init__(blocks, "utf-8")

    def __iter__(self) -> Iterator[bytes]:
        return self._blocks


def refuse_binary(start: bytes) -> None:
    """Refuse a file of another kind, by how it begins, and say how its like can be read."""
    for beginning, kind in BINARY:
        if start.startswith(beginning):
            named = NAMED_SO.get(kind)
            advice = f"; name it {named} and let paths.input_pattern match that" if named else ""
            raise TableError(f"it is {kind}, not a CSV file{advice}")
    if start[TAR_PLACE:].startswith(TAR_MARK):
        raise TableError("it is a tar archive, not a CSV file")


def unmarked_utf16(start: bytes) -> str:
    """The encoding's name if every other byte is NUL where ASCII is, or ""."""
    even, odd = start[0::2], start[1::2]
    if 0 not in start or not odd[1:]:
        return ""
    for name, low, high in (("utf-16-le", even, odd), ("utf-16-be", odd, even)):
        is_mostly_ascii = 0 not in low and 2 * high.count(0) > len(high)
        if is_mostly_ascii or has_cells(low, high):
            return name
    return ""


def has_cells(low: bytes, high: bytes) -> bool:
    """Whether each line that ends in UTF-16 has a delimiter, in whatever script the rest is."""
    ascii_ = bytes(byte for byte, other in zip(low, high, strict=False) if not other)
    ends = ascii_.count(b"\n") or ascii_.count(b"\r")
    is_sure = not any(end in high for end in b"\r\n") and 0 not in ascii_  # where no text has one
    return is_sure and 0 < ends <= sum(map(ascii_.count, DELIMITERS))


def refuse_text(text: str) -> None:
    """Refuse a text of another kind, by how it begins."""
    for beginning, kind in TEXTUAL:
        if beginning.match(text):
            raise TableError(f"it is {kind}, not a CSV file")
    if text.startswith(MISREAD_MARK):
        why = "a byte order mark that was read in a wrong encoding and saved again"
        raise TableError(f"it begins with {MISREAD_MARK!r}, {why}; export it anew as UTF-8")
