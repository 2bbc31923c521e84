"""Bytes in, whole CSV records out: decoded, cut at record ends, each as wide as the header.

- A quote is special only at the start of a cell, where it opens a quoted cell.
- In a quoted cell, `""` is one quote. Any other quote closes the cell.
- A record ends with LF or CRLF outside quotes. An empty line is no record.
- Anything else is refused with its line, never repaired.

Python's `csv` module in strict mode and Arrow read every accepted text in the same way.
"""

import codecs
import csv
import io
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice

import numpy as np
from numpy.typing import NDArray

from ds_flow.core import InputError

DELIMITERS = ",;\t|"
AUTO = "auto"
SAMPLE_BYTES = 2**16
SAMPLE_RECORDS = 100
MAX_RECORD_BYTES = 16 * 2**20
"""A longer record is refused: most often a quote was left open. Finding the borders of cells takes
up to 30 bytes of memory for each byte of a record."""

MAX_COLUMNS = 16_384
"""A wider table is refused: its memory and time grow with the columns, not with the bytes."""

LF, CR, QUOTE = b'\n\r"'

csv.field_size_limit(MAX_RECORD_BYTES)  # the module refuses cells over 128 KiB otherwise

Positions = NDArray[np.intp]
Fault = tuple[int, str]  # position in the block, reason


class TableError(InputError):
    """The file is not a table. `line` counts from 1; each LF ends a line."""

    def __init__(self, reason: str, line: int | None = None) -> None:
        super().__init__(reason if line is None else f"line {line}: {reason}")
        self.reason = reason
        self.line = line


@dataclass(frozen=True, slots=True)
class Block:
    """Whole records as UTF-8, each with its line end. `rows` counts those that are not blank."""

    text: bytes
    rows: int


class Records:
    """The records of one text: `header` at once, the others block by block, in one pass.

    Raises:
        TableError: at construction or while iterating.
    """

    def __init__(self, blocks: Iterable[bytes], *, delimiter: str, encoding: str) -> None:
        self._texts = decoded(blocks, encoding)
        self._pending = b""
        self._ended = False
        self._line = 1  # where `_pending` begins
        if delimiter == AUTO:
            self._fill(SAMPLE_BYTES)
            delimiter = sniffed(self._pending[:SAMPLE_BYTES])
        self.delimiter = delimiter
        self.header: tuple[str, ...] = ()
        self._first = self._find_header()

    def __iter__(self) -> Iterator[Block]:
        yield self._first
        while (layout := self._layout()) is not None:
            yield self._take(layout)

    def _find_header(self) -> Block:
        while (layout := self._layout()) is not None:
            if layout.rows:
                self.header = self._parse_header(layout)
                layout = layout.without_first()
                return self._take(layout)
            self._take(layout)
        raise TableError("the file is empty")

    def _parse_header(self, layout: "Layout") -> tuple[str, ...]:
        """The header's cells; the layout's own faults come first."""
        start, end = layout.starts[0], layout.ends[0]
        self._refuse([fault for fault in layout.faults if fault[0] <= end])
        text = io.StringIO(layout.text[start:end].decode(), newline="")
        header = tuple(next(csv.reader(text, delimiter=self.delimiter, strict=True)))
        if problem := header_problem(header):
            self._refuse([(int(start), problem)])
        return header

    def _take(self, layout: "Layout") -> Block:
        """Check the layout's records and move past them."""
        self._refuse(layout.faults)  # first, since they may have made a row look ragged
        ragged = np.flatnonzero(layout.cells != len(self.header))
        if ragged.size:
            first = ragged[0]
            reason = f"cells: {layout.cells[first]} in this row, {len(self.header)} in the header"
            self._refuse([(int(layout.starts[first]), reason)])
        self._pending = self._pending[layout.length :]
        self._line += layout.text.count(b"\n", 0, layout.length)
        return Block(layout.text[layout.skipped : layout.length], layout.rows)

    def _layout(self) -> "Layout | None":
        """The next whole records, or None at the end."""
        while True:
            text = self._pending
            if self._ended and text and not text.endswith(b"\n"):
                text += b"\n"
            layout = lay_out(text, ord(self.delimiter))
            if layout.length or self._ended:
                break
            if len(text) > MAX_RECORD_BYTES:
                limit_mb = MAX_RECORD_BYTES // 2**20
                self._refuse([(0, f"a record of over {limit_mb} MB; is a quote left open?")])
            self._fill(min(2 * len(text), MAX_RECORD_BYTES) + 1)  # not again for each block
        if self._ended and layout.length < len(text):
            self._refuse([*layout.faults, (layout.open_quote, "a quote is never closed")])
        return layout if layout.length else None

    def _fill(self, size: int) -> None:
        """Read on until `size` bytes are pending or the text ends."""
        while len(self._pending) < size and not self._ended:
            try:
                text = next(self._texts, None)
            except UnicodeError as error:
                raise self._undecodable(error) from None
            if text is None:
                self._ended = True
            else:
                self._pending += text
                if (found := text.find(b"\0")) >= 0:
                    self._refuse([(len(self._pending) - len(text) + found, "a NUL byte")])

    def _undecodable(self, error: UnicodeError) -> TableError:
        if not isinstance(error, UnicodeDecodeError):  # such as UTF-16 without a byte order mark
            return TableError(f"it cannot be decoded: {error}", self._line)
        lines = self._pending.count(b"\n") + error.object.count(b"\n", 0, error.start)
        byte = error.object[error.start]
        return TableError(f"byte 0x{byte:02x} is not {error.encoding}", self._line + lines)

    def _refuse(self, faults: Sequence[Fault]) -> None:
        """Raise the first fault, if there is one."""
        if faults:
            position, reason = min(faults)
            raise TableError(reason, self._line + self._pending.count(b"\n", 0, position))


def decoded(blocks: Iterable[bytes], encoding: str) -> Iterator[bytes]:
    """Give the blocks as UTF-8, without a byte order mark; raises UnicodeError."""
    decoder = codecs.getincrementaldecoder(encoding)()
    begun = False
    for block in chain(blocks, [b""]):
        text = decoder.decode(block, final=not block)
        if text and not begun:
            text = text.removeprefix("\ufeff")
            begun = True
        yield text.encode()


def sniffed(sample: bytes) -> str:
    """Choose the one delimiter that splits all the first records into as many cells.

    Where none does, the one that the header shows most of, so that the complaint is of use.

    Raises:
        TableError: another delimiter could be meant as well.
    """
    widths = {delimiter: record_widths(sample, delimiter) for delimiter in DELIMITERS}
    split = {delimiter: found for delimiter, found in widths.items() if found[0] > 1}
    agreed = [delimiter for delimiter, found in split.items() if len(set(found)) == 1]
    agreed = [delimiter for delimiter in agreed if is_well_quoted(sample, delimiter)] or agreed
    if len(agreed) > 1:
        both = " and ".join(map(repr, agreed))
        raise TableError(f"{both} each split all lines alike; set csv.delimiter")
    if not split:
        refuse_title(widths)
        return ","
    return max(agreed or split, key=lambda delimiter: split[delimiter][0])


def is_well_quoted(sample: bytes, delimiter: str) -> bool:
    """Whether each quote is at a cell's border or beside another quote."""
    other = rb'[^\r\n"' + re.escape(delimiter.encode()) + rb"]"
    return re.search(other + b'"' + other, sample) is None


def refuse_title(widths: Mapping[str, Sequence[int]]) -> None:
    """Refuse one cell above a table, which would be read as a table of one column.

    A table with commas needs no look: its rows are longer than such a header.
    """
    for delimiter in DELIMITERS.replace(",", ""):
        first, *others = widths[delimiter]
        width, count = Counter(others).most_common(1)[0] if others else (first, 0)
        if width > 1 and 2 * count > len(others):
            raise TableError(
                f"with {delimiter!r} the first line is 1 cell, and most others are {width}; "
                "remove a title, or set csv.delimiter"
            )


def record_widths(sample: bytes, delimiter: str) -> list[int]:
    """Count the cells of the sample's first records, without a last one that may be cut."""
    lines = io.StringIO(sample.decode(errors="ignore"), newline="")
    rows = csv.reader(lines, delimiter=delimiter)
    found = [len(row) for row in islice(rows, SAMPLE_RECORDS) if row]
    cut = len(sample) >= SAMPLE_BYTES and len(found) > 1
    return found[: -1 if cut else None] or [0]


def header_problem(header: Iterable[str]) -> str:
    """Why these names cannot be a header, or ""."""
    seen: set[str] = set()
    header = tuple(header)
    if len(header) > MAX_COLUMNS:
        return f"{len(header):,} columns; at most {MAX_COLUMNS:,} are taken"
    for number, name in enumerate(header, start=1):
        if not name.strip():
            return f"column {number} of the header has no name"
        if name in seen:
            return f"the header names {name!r} twice"
        seen.add(name)
    return "" if seen else "there is no column"


# --------------------------------------------------------------------------- one block's layout


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the whole records of a text lie: [start, end) without the LF; blank ones left out."""

    text: bytes
    length: int  # of the part that holds whole records
    starts: Positions
    ends: Positions
    cells: Positions  # how many each record has
    faults: tuple[Fault, ...]
    open_quote: int  # where a quoted cell begins that does not end here, or -1
    skipped: int = 0

    @property
    def rows(self) -> int:
        return len(self.starts)

    def without_first(self) -> "Layout":
        """The same without its first record and what stands before."""
        return replace(
            self,
            starts=self.starts[1:],
            ends=self.ends[1:],
            cells=self.cells[1:],
            skipped=int(self.ends[0]) + 1,
        )


def lay_out(text: bytes, delimiter: int) -> Layout:
    """Find the whole records of a text that begins at a record's start."""
    codes = np.frombuffer(text, np.uint8)
    quotes, fault = quote_bounds(text, codes, delimiter)
    ends = outside(np.flatnonzero(codes == LF), quotes)
    length = int(ends[-1]) + 1 if ends.size else 0
    starts = np.concatenate((np.zeros(1, np.intp), ends[:-1] + 1))[: ends.size]
    delimiters = outside(np.flatnonzero(codes == delimiter), quotes)
    cells = np.diff(np.searchsorted(delimiters, ends), prepend=0) + 1
    sizes = ends - starts
    real = (sizes > 1) | ((sizes == 1) & (codes[starts] != CR))
    faults = [fault] if fault and fault[0] < length else []
    returns = outside(np.flatnonzero(codes[:length] == CR), quotes)
    if (stray := returns[codes[returns + 1] != LF]).size:
        faults.append((int(stray[0]), "a carriage return that ends no line"))
    return Layout(
        text=text,
        length=length,
        starts=starts[real],
        ends=ends[real],
        cells=cells[real],
        faults=tuple(faults),
        open_quote=int(quotes[-1]) if quotes.size % 2 else -1,
    )


def outside(positions: Positions, quotes: Positions) -> Positions:
    """Those positions that are in no quoted cell."""
    if not quotes.size:
        return positions
    found: Positions = positions[np.searchsorted(quotes, positions) % 2 == 0]
    return found


def quote_bounds(
    text: bytes, codes: NDArray[np.uint8], delimiter: int
) -> tuple[Positions, Fault | None]:
    """Find where quoted text begins and ends, by turns, and the first cell that goes on after."""
    marks = np.flatnonzero(codes == QUOTE)
    borders = np.zeros(256, bool)
    borders[[LF, CR, QUOTE, delimiter]] = True
    opening, closing = marks[0::2], marks[1::2]
    # Where each quote stands at a border or beside another, plain counting is exact.
    if (
        borders[codes[opening[opening > 0] - 1]].all()
        and borders[codes[closing[closing + 1 < len(codes)] + 1]].all()
    ):
        return marks, None
    return exact_bounds(text, codes, borders, delimiter)


def exact_bounds(
    text: bytes, codes: NDArray[np.uint8], borders: NDArray[np.bool_], delimiter: int
) -> tuple[Positions, Fault | None]:
    """The same for texts with quotes inside unquoted cells, at about 20 MB a second."""
    opening = rb'"(?<![^\r\n' + re.escape(bytes([delimiter])) + rb']")'
    cell = re.compile(opening + rb'[^"]*+(?:""[^"]*+)*+("?)')
    found = [bound for each in cell.finditer(text) for bound in (each.start(), each.start(1))]
    if found and found[-1] == len(text):  # the last one never closes
        found.pop()
    bounds = np.array(found, np.intp)
    closing = bounds[1::2]
    wrong = closing[closing + 1 < len(codes)]
    wrong = wrong[~borders[codes[wrong + 1]]]
    return bounds, (int(wrong[0]), "text after a closing quote") if wrong.size else None
