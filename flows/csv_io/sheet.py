"""The cells of one sheet as CSV text: a line for each row, so a line's number is the row's."""

import re
from collections.abc import Iterator, Mapping
from typing import BinaryIO

from csv_io.allowance import Allowance
from csv_io.cell_text import Kind, number_text, time_text
from csv_io.errors import TableError
from csv_io.records import MAX_COLUMNS, MAX_RECORD_BYTES
from csv_io.rendering import header_line, line
from csv_io.workbook import RichText, Workbook, open_workbook, sheet_names, unescaped
from csv_io.xml_events import events

MAX_ROWS = 2**20
PENDING_BYTES = 2**26  # of text from one block: a short reference may stand for a long text
PIECE_BYTES, BLOCK_BYTES = 2**14, 2**18
REFERENCE = re.compile("([A-Z]{1,3})[0-9]+")
INDEX = re.compile("[0-9]{1,9}")
LETTERS = 26
SAVE_IT = "open it in Excel, and save it"


def workbook_text(
    file: BinaryIO, allowance: Allowance, sheet: str, notes: list[str]
) -> Iterator[bytes]:
    """Give the text of a sheet of an open workbook: the named one, or the first that is visible.

    Raises:
        TableError: the sheet is missing, or a cell has no text that is sure.
    """
    book = open_workbook(file, allowance)
    chosen = book.chosen(sheet)
    if not sheet and len(names := list(sheet_names(book))) > 1:
        notes.append(f"of its {len(names)} sheets, the first was read: {chosen.name!r}")
    rows = Rows(book)
    for _ in events(_pieces(book, chosen.part), rows.begin, rows.end):
        if rows.pending_bytes >= BLOCK_BYTES:
            allowance.take(rows.pending_bytes)
            yield rows.taken()
    yield rows.taken()


def _pieces(book: Workbook, part: str) -> Iterator[bytes]:
    for block in book.archive.blocks(part):
        for start in range(0, len(block), PIECE_BYTES):
            yield block[start : start + PIECE_BYTES]


class Rows:
    """Takes in the tags of a sheet, and gives its rows as text.

    The first row with text is the header. Rows without any text are empty lines.
    """

    def __init__(self, book: Workbook) -> None:
        self._book = book
        self._text = RichText()
        self._pending: list[bytes] = []
        self.pending_bytes = 0
        self._width = 0  # of the header; 0 before there is one
        self._row = self._column = self._row_length = 0
        self._cells: dict[int, str] = {}
        self._kind = self._style = ""
        self._value: str | None = None
        self._in_cell = self._has_formula = False

    def taken(self) -> bytes:
        """The rows that are whole."""
        text = b"".join(self._pending)
        self._pending.clear()
        self.pending_bytes = 0
        return text

    def begin(self, tag: str, given: Mapping[str, str]) -> None:
        """Take in a tag."""
        if tag == "row":
            self._begin_row(given.get("r", ""))
        elif tag == "c":
            self._begin_cell(given)
        elif tag == "f":
            self._has_formula = self._in_cell
        else:
            self._text.begin(tag, given)

    def end(self, tag: str, text: str) -> None:
        """Take in the end of a tag, and the text before it."""
        if tag == "row":
            self._end_row()
        elif tag == "c":
            self._end_cell()
        elif tag == "v" and self._in_cell:
            self._value = text
        else:
            self._text.end(tag, text)

    def _begin_row(self, number: str) -> None:
        try:
            row = _index(number) if number else self._row + 1
        except ValueError:
            raise TableError(f"the row after {self._row} is damaged") from None
        if not self._row < row <= MAX_ROWS:
            raise TableError(f"its rows are out of order: {row} after {self._row}")
        self._put(b"\n" * (row - self._row - 1))
        self._row, self._column = row, 0
        self._cells, self._row_length = {}, 0

    def _end_row(self) -> None:
        if not self._cells:
            self._put(b"\n")
        elif not self._width:
            self._width = max(self._cells)
            self._put(header_line(self._in_order()))
        else:
            if (last := max(self._cells)) > self._width:
                where = f"cell {name_of(last)}{self._row}"
                raise TableError(f"{where} holds text, but no header stands above it")
            self._put(line(self._in_order()).encode())

    def _in_order(self) -> list[str]:
        return [self._cells.get(column, "") for column in range(1, self._width + 1)]

    def _put(self, text: bytes) -> None:
        self._pending.append(text)
        self.pending_bytes += len(text)
        if self.pending_bytes > PENDING_BYTES:
            raise TableError(f"the rows up to {self._row} repeat a long text too often")

    def _begin_cell(self, given: Mapping[str, str]) -> None:
        place = given.get("r", "")
        column = number_of(place) if place else self._column + 1
        if not self._column < column <= MAX_COLUMNS:
            raise TableError(f"the cells of row {self._row} are out of order, or too many")
        self._column = column
        self._kind, self._style = given.get("t", "n"), given.get("s", "0")
        self._value, self._in_cell, self._has_formula = None, True, False
        self._text.taken()

    def _end_cell(self) -> None:
        self._in_cell = False
        try:
            text = self._cell_text()
        except (ValueError, LookupError):
            raise TableError(f"{self._where} is damaged") from None
        except TableError as error:
            raise TableError(f"{self._where}: {error.reason}") from error  # it may quote a cell
        if text:
            self._cells[self._column] = text
            self._row_length += len(text)
            if self._row_length > MAX_RECORD_BYTES:
                raise TableError(f"row {self._row} has over {MAX_RECORD_BYTES // 2**20} MB of text")

    @property
    def _where(self) -> str:
        return f"cell {name_of(self._column)}{self._row}"

    def _cell_text(self) -> str:
        if self._kind == "inlineStr":
            return self._text.taken()
        value = self._value or ""
        if self._has_formula:
            self._refuse_uncalculated(value)
        if not value:
            return ""
        match self._kind:
            case "s":
                return self._book.texts[_index(value)]
            case "str":
                return unescaped(value)
            case "b":
                return {"0": "FALSE", "1": "TRUE"}[value]
            case "e" | "d":
                return value
        return self._number_text(value.strip())

    def _refuse_uncalculated(self, value: str) -> None:
        if not value and self._kind != "str":
            raise TableError(f"a formula without a value; {SAVE_IT}")
        if value == "0" and self._kind == "n" and not self._book.is_calculated:
            raise TableError(f"a formula that was never calculated; {SAVE_IT}")

    def _number_text(self, raw: str) -> str:
        formats = self._book.formats
        kind, template = formats[_index(self._style)] if formats else (Kind.NUMBER, "")
        if kind is Kind.NUMBER:
            return number_text(raw, template)
        return time_text(raw, kind, since_1904=self._book.since_1904)


def _index(text: str) -> int:
    """A place in a list; one before its start is none."""
    if not INDEX.fullmatch(text):
        raise ValueError(text)
    return int(text)


def number_of(place: str) -> int:
    """The number of the column of a cell such as `AB12`, from 1."""
    found = REFERENCE.fullmatch(place)
    if not found:
        raise TableError(f"it has a cell at {place!r}")
    number = 0
    for letter in found[1]:
        number = number * LETTERS + ord(letter) - ord("A") + 1
    return number


def name_of(column: int) -> str:
    """The letters of a column: `AB` for 28."""
    name = ""
    while column:
        column, rest = divmod(column - 1, LETTERS)
        name = chr(ord("A") + rest) + name
    return name
