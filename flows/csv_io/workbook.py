"""An Excel workbook (.xlsx): its sheets, its texts, and what its number formats mean.

A reader of our own: those that there are read an error such as `#N/A`, and a formula without a
value, as an empty cell, or hold the whole sheet in memory.
"""

import posixpath
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import BinaryIO

from csv_io.allowance import Allowance
from csv_io.cell_text import BUILT_IN, Kind, kind_of, template_of
from csv_io.errors import TableError
from csv_io.xml_events import read_xml
from csv_io.zipped import Archive

TEXTS_BYTES = 2**29
"""Of all different texts of a workbook, as they lie in memory."""

TEXT_PARTS = 2**15  # of one text: each letter of the longest that Excel takes
TEXT_CHARS = 2**24  # of one text, with all its parts
PLACE_BYTES = 8  # of a text in the list
OLD = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"  # how .xls begins, and a workbook with a password
PASSWORD = "EncryptedPackage".encode("utf-16-le")
ZIP = b"PK\x03\x04"
ESCAPED = re.compile("_x([0-9A-Fa-f]{4})_")


@dataclass(frozen=True, slots=True)
class Sheet:
    """A sheet, and where its cells are in the archive."""

    name: str
    part: str
    is_hidden: bool


@dataclass(slots=True)
class Workbook:
    """What the cells of all sheets share."""

    archive: Archive
    since_1904: bool = False
    is_calculated: bool = True  # else some writers have put 0 for the value of each formula
    sheets: list[Sheet] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    formats: list[tuple[Kind, str]] = field(default_factory=list)  # with its template; by style

    def chosen(self, name: str) -> Sheet:
        """The sheet of that name, or the first that is not hidden.

        Raises:
            TableError: there is none.
        """
        if name:
            found = next((one for one in self.sheets if one.name == name), None)
        else:
            found = next((one for one in self.sheets if not one.is_hidden), None)
        if found is None:
            names = ", ".join(repr(one.name) for one in self.sheets[:10]) or "none"
            wanted = f"no sheet {name!r}" if name else "no visible sheet"
            raise TableError(f"it has {wanted}; its sheets are: {names}; set csv.sheet")
        return found


def open_workbook(file: BinaryIO, allowance: Allowance) -> Workbook:
    """Read all of a workbook but its cells.

    Raises:
        TableError: it is none, has a password, or is damaged or too large.
    """
    refuse_others(file)
    archive = Archive(file, allowance)
    root = relations(archive, "")
    part = next((part for kind, part in root.values() if kind == "officeDocument"), "")
    if not part:
        raise TableError("it is a zip archive, but no workbook")
    book = Workbook(archive)
    parts = relations(archive, part)
    read_sheets(book, part, parts)
    others = dict(parts.values())
    if name := others.get("styles"):
        book.formats = read_formats(archive, name)
    if name := others.get("sharedStrings"):
        book.texts = read_texts(archive, name)
    return book


def refuse_others(file: BinaryIO) -> None:
    """Refuse a file that is not a zip archive, by what it is."""
    file.seek(0)
    start = file.read(2**20)
    if not start:
        raise TableError("the file is empty")
    if start.startswith(OLD):
        if PASSWORD in start:
            raise TableError("it is protected by a password; save it without one")
        raise TableError("it is an old Excel workbook (.xls), or has a password; save it as .xlsx")
    if not start.startswith(ZIP):
        raise TableError("its name ends with .xlsx, but it is not an Excel workbook; rename it")


def relations(archive: Archive, part: str) -> dict[str, tuple[str, str]]:
    """The parts that a part refers to: for each id, the kind of the part and its name."""
    folder, name = posixpath.split(part)
    found: dict[str, tuple[str, str]] = {}

    def begin(tag: str, given: Mapping[str, str]) -> None:
        if tag == "Relationship" and given.get("TargetMode") != "External":
            target = posixpath.normpath(posixpath.join("/", folder, given.get("Target", "")))
            kind = given.get("Type", "").rpartition("/")[2]
            found[given.get("Id", "")] = (kind, target.lstrip("/"))

    read_xml([archive.whole(posixpath.join(folder, "_rels", f"{name}.rels"))], begin, _nothing)
    return found


def read_sheets(book: Workbook, part: str, parts: Mapping[str, tuple[str, str]]) -> None:
    """Find the sheets that have cells, in the order in which a person sees them."""

    def begin(tag: str, given: Mapping[str, str]) -> None:
        if tag == "workbookPr":
            book.since_1904 = given.get("date1904") in {"1", "true"}
        elif tag == "calcPr":
            book.is_calculated = given.get("fullCalcOnLoad") not in {"1", "true"}
        elif tag == "sheet":
            ref = next((value for key, value in given.items() if key.endswith("}id")), "")
            kind, where = parts.get(ref, ("", ""))
            if kind == "worksheet":
                is_hidden = given.get("state", "visible") != "visible"
                book.sheets.append(Sheet(given.get("name", ""), where, is_hidden))

    read_xml([book.archive.whole(part)], begin, _nothing)


def read_formats(archive: Archive, part: str) -> list[tuple[Kind, str]]:
    """What a number means, for each style of a cell."""
    codes: dict[str, str] = {}
    formats: list[tuple[Kind, str]] = []
    around: list[str] = []

    def begin(tag: str, given: Mapping[str, str]) -> None:
        if tag == "numFmt" and around[-1:] == ["numFmts"]:
            codes[given.get("numFmtId", "")] = given.get("formatCode", "")
        elif tag == "xf" and around[-1:] == ["cellXfs"]:
            formats.append(_meaning(given.get("numFmtId", "0"), codes))
        around.append(tag)

    def end(_tag: str, _text: str) -> None:
        around.pop()

    read_xml([archive.whole(part)], begin, end)
    return formats


def _meaning(number: str, codes: Mapping[str, str]) -> tuple[Kind, str]:
    if number in codes:
        return kind_of(codes[number]), template_of(codes[number])
    return BUILT_IN.get(number, Kind.NUMBER), ""


def read_texts(archive: Archive, part: str) -> list[str]:
    """The texts that cells refer to, without the signs that say how to pronounce them."""
    texts: list[str] = []
    text = RichText()
    size = 0

    def end(tag: str, found: str) -> None:
        nonlocal size
        text.end(tag, found)
        if tag == "si":
            texts.append(text.taken())
            size += sys.getsizeof(texts[-1]) + PLACE_BYTES
            if size > TEXTS_BYTES:
                raise TableError(f"its texts take over {TEXTS_BYTES // 2**20} MB of memory")

    read_xml(archive.blocks(part), text.begin, end)
    return texts


class RichText:
    """A text that may be in parts, each with a font of its own."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._is_spoken = False
        self._chars = 0

    def begin(self, tag: str, _given: Mapping[str, str]) -> None:
        self._is_spoken = self._is_spoken or tag == "rPh"

    def end(self, tag: str, text: str) -> None:
        if tag == "rPh":
            self._is_spoken = False
        elif tag == "t" and not self._is_spoken:
            self._parts.append(text)
            self._chars += len(text)
            if self._chars > TEXT_CHARS or len(self._parts) > TEXT_PARTS:
                raise TableError("a text in it has too many parts, or is too long")

    def taken(self) -> str:
        """The whole text; a new one begins."""
        text = unescaped("".join(self._parts))
        self._parts.clear()
        self._chars = 0
        return text


def unescaped(text: str) -> str:
    """Put back the characters that XML cannot have, such as `_x000D_`."""
    return ESCAPED.sub(_character, text) if "_x" in text else text


def _character(found: re.Match[str]) -> str:
    char = chr(int(found[1], 16))
    return found[0] if "\ud800" <= char <= "\udfff" else char  # half a character


def _nothing(_tag: str, _text: str) -> None:
    pass


def sheet_names(book: Workbook) -> Iterator[str]:
    """The names of the sheets that a person sees."""
    return (one.name for one in book.sheets if not one.is_hidden)
