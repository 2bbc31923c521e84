"""Whole CSV records of a text, each as wide as the header.

- A quote is special only at the start of a cell, where it opens a quoted cell.
- In a quoted cell, `""` is one quote. Any other quote closes the cell.
- A record ends with LF, CRLF or CRCRLF outside quotes. If the first one ends with CR alone, as on
  an old Mac, all do. An empty line is no record.
- Anything else is refused with its line, never repaired.

Python's `csv` module in strict mode and Arrow read every accepted text in the same way. What is no
record is left out first: a line `sep=;`, an end mark ^Z, and lines of blanks after the last record.
"""

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from csv_io.decoding import Decoder, OwnText
from csv_io.dialect import LF_ENDS, SAMPLE_BYTES, announced, line_end, sniffed
from csv_io.errors import SET_ENCODING, TableError, WrongEncodingError
from csv_io.layout import CR, Fault, Layout, Positions, lay_out

AUTO = "auto"
MAX_RECORD_BYTES = 16 * 2**20
"""A longer record is refused: most often a quote was left open. Finding the borders of cells takes
up to 30 bytes of memory for each byte of a record."""

MAX_COLUMNS = 16_384
"""A wider table is refused: its memory and time grow with the columns, not with the bytes."""

csv.field_size_limit(MAX_RECORD_BYTES)  # the module refuses cells over 128 KiB otherwise


@dataclass(frozen=True, slots=True)
class Block:
    """Whole records as UTF-8, each with its line end; CRLF is LF where nothing is quoted.

    `rows` counts those that are not blank.
    """

    text: bytes
    rows: int
    starts: Positions  # of the rows, in the text
    line: int  # where the text begins
    lines: int  # how many ends of lines are in it
    newline: bytes

    @property
    def is_plain(self) -> bool:
        """Whether cells and rows end wherever there is a delimiter or a line feed."""
        text = self.text
        if self.newline != LF_ENDS or b'"' in text or b"\r" in text:
            return False
        return self.lines == self.rows

    def line_of(self, row: int) -> int:
        """The line where a row begins."""
        return self.line + self.text.count(self.newline, 0, int(self.starts[row]))


class Records:
    """The records of one text: `header` at once, the others block by block, in one pass.

    A column without a name is "" in the header. `first_column` names the first one. With `is_ours`,
    a file that was written here is read, whose first name may look like anything. `notes` is
    complete after the last block.

    Raises:
        TableError: at construction or while iterating.
    """

    def __init__(
        self,
        blocks: Iterable[bytes],
        *,
        delimiter: str,
        encoding: str,
        first_column: str = "",
        max_columns: int = MAX_COLUMNS,
        is_ours: bool = False,
    ) -> None:
        self._decoder = OwnText(blocks) if is_ours else Decoder(blocks, encoding)
        self._texts = iter(self._decoder)
        self.notes = self._decoder.notes
        self._pending = b""
        self._ended = False
        self._line = 1  # where `_pending` begins
        self._newline = LF_ENDS
        self._fill(SAMPLE_BYTES + 2)  # with what follows a CR
        self.delimiter = self._find_delimiter(delimiter)
        self._newline = line_end(self._pending)
        self.header: tuple[str, ...] = ()
        self.header_line = 1
        self._max_columns = max_columns
        self._first = self._find_header(first_column)

    @property
    def encoding(self) -> str:
        """The encoding in use."""
        return self._decoder.encoding

    def __iter__(self) -> Iterator[Block]:
        yield self._first
        while (layout := self._layout()) is not None:
            yield self._take(layout)

    def _find_delimiter(self, chosen: str) -> str:
        said, length = announced(self._pending)
        if not said:
            return sniffed(self._pending[:SAMPLE_BYTES]) if chosen == AUTO else chosen
        if chosen not in {AUTO, said}:
            raise TableError(f"it says sep={said}, but csv.delimiter is {chosen!r}", 1)
        self._pending = self._pending[length:]
        self._line += 1
        self.notes.append(f"its first line, sep={said}, was obeyed and left out")
        return said

    def _find_header(self, first_column: str) -> Block:
        while (layout := self._layout()) is not None:
            if layout.rows:
                self.header = self._parse_header(layout, first_column)
                layout = layout.without_first()
                return self._take(layout)
            self._take(layout)
        raise TableError("the file is empty")

    def _parse_header(self, layout: Layout, first_column: str) -> tuple[str, ...]:
        """The header's cells; the layout's own faults come first."""
        start, end = int(layout.starts[0]), int(layout.ends[0])
        self._refuse([fault for fault in layout.faults if fault.position <= end])
        text = io.StringIO(layout.text[start:end].decode(), newline="")
        cells = next(csv.reader(text, delimiter=self.delimiter, strict=True))
        if first_column and not cells[0].strip():
            cells[0] = first_column
        header = tuple(cell if cell.strip() else "" for cell in cells)
        if problem := header_problem(filter(None, header), self._max_columns):
            self._refuse([Fault(start, problem)])
        self.header_line = self._line + layout.text.count(self._newline, 0, start)
        for number, name in enumerate(header, start=1):
            if not name:
                self.notes.append(f"column {number}, without a name and empty, was left out")
        return header

    def _take(self, layout: Layout) -> Block:
        """Check the layout's records and move past them."""
        self._refuse(layout.faults)  # first, since they may have made a row look ragged
        ragged = np.flatnonzero(layout.cells != len(self.header))
        if ragged.size:
            layout = self._without_blank_end(layout, int(ragged[0]))
        line = self._line + layout.text.count(self._newline, 0, layout.skipped)
        lines = layout.text.count(self._newline, layout.skipped, layout.length)
        text, starts = self._without_returns(layout)
        self._pending = self._pending[layout.length :]
        self._line = line + lines
        return Block(
            text=text,
            rows=layout.rows,
            starts=starts,
            line=line,
            lines=lines,
            newline=self._newline,
        )

    def _without_returns(self, layout: Layout) -> tuple[bytes, Positions]:
        """The text of records, and where they start, with LF alone at their ends if none quotes."""
        text, starts = layout.text[layout.skipped : layout.length], layout.starts - layout.skipped
        if self._newline != LF_ENDS or b"\r" not in text or b'"' in text:
            return text, starts
        returns = np.flatnonzero(np.frombuffer(text, np.uint8) == CR)
        return text.replace(b"\r", b""), starts - np.searchsorted(returns, starts)

    def _without_blank_end(self, layout: Layout, ragged: int) -> Layout:
        """Cut the text at a row of unlike width if only blanks follow; else refuse the row."""
        start, end = int(layout.starts[ragged]), int(layout.ends[ragged])
        while not self._ended and not self._pending[start:].strip(b" \r\n"):
            if len(self._pending) - start > MAX_RECORD_BYTES:
                break
            self._fill(len(self._pending) + 1)
        if not self._ended or self._pending[start:].strip(b" \r\n"):
            lines = layout.text.count(self._newline, start, end)
            last = self._line + layout.text.count(self._newline, 0, end)
            to = f" (to line {last})" if lines else ""
            cells = layout.cells[ragged]
            reason = f"cells: {cells} in this row{to}, {len(self.header)} in the header"
            is_cut = cells < len(self.header) and end >= len(self._pending)
            self._refuse([Fault(start, reason + (self._perhaps_cut_off() if is_cut else ""))])
        self.notes.append("blanks after its last row were left out")
        self._pending = self._pending[:start]
        return layout.until(ragged)

    def _layout(self) -> Layout | None:
        """The next whole records, or None at the end."""
        while True:
            text = self._pending
            if self._ended and not text:
                return None
            if self._ended and not text.endswith(self._newline):
                text += self._newline
                self._note_no_line_end()
            layout = lay_out(text, ord(self.delimiter), self._newline)
            if layout.length or self._ended:
                break
            if len(text) > MAX_RECORD_BYTES:
                limit_mb = MAX_RECORD_BYTES // 2**20
                self._refuse([Fault(0, f"a record of over {limit_mb} MB; is a quote left open?")])
            self._fill(min(2 * len(text), MAX_RECORD_BYTES) + 1)  # not again for each block
        if self._ended and layout.length < len(text):
            reason = f"a quote is never closed{self._perhaps_cut_off()}"
            self._refuse([*layout.faults, Fault(layout.open_quote, reason)])
        return layout if layout.length else None

    def _note_no_line_end(self) -> None:
        """Note what may be a file that was cut off; nobody can know."""
        line = self._pending.rpartition(b"\n")[2]
        if not self._decoder.has_end_mark and line.strip(b"\r "):
            self.notes.append(NO_LINE_END)

    def _perhaps_cut_off(self) -> str:
        """What to add to a reason that a cut at the end of the text may explain."""
        return f"; {NO_LINE_END}" if NO_LINE_END in self.notes else ""

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
                    self._refuse([Fault(len(self._pending) - len(text) + found, "a NUL byte")])

    def _undecodable(self, error: UnicodeError) -> TableError:
        encoding = self._decoder.encoding
        if not isinstance(error, UnicodeDecodeError):  # such as UTF-16 without a byte order mark
            return WrongEncodingError(f"it cannot be decoded as {encoding}: {error}")
        # CR and LF may lie in the bytes of other characters; it is the best guess for UTF-16, too.
        lines = self._pending.count(b"\n") + error.object.count(b"\n", 0, error.start)
        reason = f"byte 0x{error.object[error.start]:02x} is not {encoding}"
        if self._decoder.is_told:
            return TableError(reason, self._line + lines)
        advice = f"if it is in another encoding, {SET_ENCODING}"
        return WrongEncodingError(reason, self._line + lines, advice)

    def _refuse(self, faults: Sequence[Fault]) -> None:
        """Raise the first fault, if there is one."""
        if not faults:
            return
        fault = min(faults)
        line = self._line_at(fault.position)
        begun = self._line_at(fault.begun) if fault.begun >= 0 else line
        where = f"; the cell begins with a quote in line {begun}" if begun != line else ""
        raise TableError(fault.reason + where, line)

    def _line_at(self, position: int) -> int:
        return self._line + self._pending.count(self._newline, 0, position)


NO_LINE_END = "its last line has no line end; perhaps it was cut off"


def header_problem(header: Iterable[str], max_columns: int = MAX_COLUMNS) -> str:
    """Why these names cannot be a header, or ""."""
    seen: set[str] = set()
    header = tuple(header)
    if len(header) > max_columns:
        return f"{len(header):,} columns; at most {max_columns:,} are taken"
    for number, name in enumerate(header, start=1):
        if not name.strip():
            return f"column {number} of the header has no name"
        if name in seen:
            return f"the header names {name!r} twice"
        seen.add(name)
    return "" if seen else "there is no column"
