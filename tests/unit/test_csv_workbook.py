"""Excel workbooks, from LibreOffice, openpyxl and by hand: cells as a person sees them."""

import csv
import datetime as dt
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openpyxl
import pandas as pd
import pytest
from conftest import require
from hypothesis import given
from hypothesis import strategies as st
from openpyxl.worksheet.worksheet import Worksheet

from csv_io.allowance import Allowance
from csv_io.cell_text import Kind, kind_of, number_text, time_text
from csv_io.errors import TableError
from csv_io.sheet import name_of, number_of
from csv_io.zipped import Archive
from ds_flow.core import Reading
from formats import converted, gzip, read, read_apart, workbook

Fill = Callable[[Worksheet], None]


def saved(folder: Path, fill: Fill) -> Path:
    """A workbook of one sheet, as openpyxl saves it."""
    book = openpyxl.Workbook()
    made = book.active
    assert isinstance(made, Worksheet)
    fill(made)
    book.save(folder / "a.xlsx")
    return folder / "a.xlsx"


def cell(folder: Path, value: Any, code: str = "") -> str:
    """What a cell with this value and number format is read as."""

    def fill(made: Worksheet) -> None:
        made.append(["n", "cell"])
        made.append([1, value])
        if code:
            made["B2"].number_format = code

    return read(saved(folder, fill)).rows[1][1]


# --------------------------------------------------------------------------- LibreOffice


SHEET = [
    ["Ann", "1.10", "=1+1", "'007", "2024-02-29", "2024-02-29 12:30:15", "12:30:15"],
    ['José, "Pepe"', "1000000", "=0.1+0.2", "NA", "1999-12-31", "2024-01-01 00:00:00", "00:00:00"],
    ["", "0.0000001", '=CONCATENATE("a","b")'],
]
MORE = [["TRUE", "12.5%", "=NA()", ""], ["FALSE", "50%", "=1/0", ""], []]
CELLS = [
    *("name", "number", "formula", "text", "date", "moment", "time"),
    *("truth", "percent", "error", "empty"),
]


@pytest.fixture(scope="module")
def office(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of what LibreOffice saves, from one start of it for each kind."""
    require("soffice")
    folder = tmp_path_factory.mktemp("office")
    source = folder / "marks.csv"
    with source.open("w", newline="") as file:
        csv.writer(file).writerows([CELLS, *map(list.__add__, SHEET, MORE)])
    converted(
        [source],
        "xlsx:Calc MS Excel 2007 XML",
        folder,
        "CSV:44,34,76,1,,1033,false,true,false,false,false,-1",
    )
    converted(
        [folder / "marks.xlsx"],
        "csv:Text - txt - csv (StarCalc):59,34,65535,1,,0,false,true",
        folder / "utf16",
    )
    return folder


@pytest.mark.exhaustive
def test_unicode_text_of_libreoffice_is_read_by_its_mark(office: Path) -> None:
    found = read(office / "utf16" / "marks.csv", Reading(encoding="cp1252", delimiter=";"))
    assert found.rows[0] == CELLS
    assert found.rows[2][0] == 'José, "Pepe"'
    assert found.notes == ["read as utf-16-le, by its byte order mark, not as cp1252"]


def test_a_workbook_of_libreoffice_is_read_as_it_shows_it(office: Path) -> None:
    rows = read(office / "marks.xlsx").rows
    assert rows[0] == CELLS
    assert rows[1] == [
        *("Ann", "1.1", "2", "'007", "2024-02-29", "2024-02-29T12:30:15", "12:30:15"),
        *("TRUE", "0.125", "#N/A", ""),
    ]
    assert rows[2] == [
        *('José, "Pepe"', "1000000", "0.3", "NA", "1999-12-31", "2024-01-01T00:00:00"),
        *("00:00:00", "FALSE", "0.5", "#DIV/0!", ""),
    ]
    assert rows[3][:3] == ["", "0.0000001", "ab"]


# --------------------------------------------------------------------------- openpyxl, pandas


VALUES: dict[str, tuple[Any, str, str]] = {
    "text": ("007", "", "007"),
    "an empty text": ("", "", ""),
    "text with breaks": ('a,"b"\nc', "", 'a,"b"\nc'),
    "a whole number": (1, "", "1"),
    "zero": (0.0, "", "0"),
    "noise": (0.1 + 0.2, "", "0.3"),
    "a small number": (1e-10, "", "0.0000000001"),
    "a huge number": (1.5e300, "", "1.5E+300"),
    "a rounded look": (1.239, "0.00", "1.239"),
    "leading zeros": (7, "00000", "00007"),
    "leading zeros below zero": (-7, "000", "-007"),
    "leading zeros and a fraction": (7.5, "000", "7.5"),
    "a code with signs": (12_345_678, "000\\-00\\-0000", "012-34-5678"),
    "a code with a text": (42, '"STU-"0000', "STU-0042"),
    "a code that is too long": (1234567, "00-000", "1234-567"),
    "a code below zero": (-7, "[Red]000;-000", "-007"),
    "a code of a language": (7, "[$-409]00000", "00007"),
    "a number with a unit": (5, '0" kg"', "5"),
    "a zip code of nine": (21_340_042, "00000-0000", "02134-0042"),
    "percent": (0.125, "0%", "0.125"),
    "currency": (5, '"$"#,##0.00;[Red]-"$"#,##0.00', "5"),
    "scientific": (1e5, "0.00E+00", "100000"),
    "a day": (dt.date(2024, 2, 29), "", "2024-02-29"),
    "a day of another look": (dt.date(2024, 2, 29), "[$-409]d-mmm-yy;@", "2024-02-29"),
    "a month": (dt.date(2024, 2, 1), "mmmm", "2024-02-01"),
    "a day with a time": (dt.datetime(2024, 2, 29, 12), "yyyy-mm-dd", "2024-02-29T12:00:00"),  # noqa: DTZ001
    "a moment": (dt.datetime(2024, 2, 29, 12, 30, 15), "", "2024-02-29T12:30:15"),  # noqa: DTZ001
    "midnight": (dt.datetime(2024, 2, 29), "d.m.yy h:mm", "2024-02-29T00:00:00"),  # noqa: DTZ001
    "milliseconds": (
        dt.datetime(2024, 2, 29, 1, 2, 3, 250000),  # noqa: DTZ001
        "",
        "2024-02-29T01:02:03.250",
    ),
    "a time": (dt.time(1, 2, 3), "", "01:02:03"),
    "a time of half days": (dt.time(13, 2, 3), "h:mm AM/PM", "13:02:03"),
    "a span": (dt.timedelta(hours=30, minutes=5), "[h]:mm:ss", "30:05:00"),
    "truth": (True, "", "TRUE"),
    "an error": ("#N/A", "", "#N/A"),
    "another error": ("#DIV/0!", "", "#DIV/0!"),
    "a text like a date": ("2024-02-29", "", "2024-02-29"),
    "an old day": (59, "yyyy-mm-dd", "1900-02-28"),
    "the first of March 1900": (61, "yyyy-mm-dd", "1900-03-01"),
}


@pytest.mark.parametrize(("value", "code", "text"), VALUES.values(), ids=VALUES)
def test_a_cell_is_the_text_that_a_person_sees(
    tmp_path: Path, value: Any, code: str, text: str
) -> None:
    assert cell(tmp_path, value, code) == text


UNSURE: dict[str, tuple[Any, str, str]] = {
    "a formula without a value": ("=1+1", "", "cell B2: a formula without a value; open it in"),
    "29 February 1900": (60, "yyyy-mm-dd", "cell B2: the number 60 is shown as a date, and is no"),
    "no day": (0, "yyyy-mm-dd", "cell B2: the number 0 is shown as a date, and is no day"),
    "a day before all": (-1, "yyyy-mm-dd", "cell B2: the number -1 is shown as a date"),
    "a day after all": (3_000_000, "yyyy-mm-dd", "cell B2: the number 3000000 is shown as a date"),
}


@pytest.mark.parametrize(("value", "code", "reason"), UNSURE.values(), ids=UNSURE)
def test_a_cell_whose_text_would_be_a_guess_is_refused(
    tmp_path: Path, value: Any, code: str, reason: str
) -> None:
    with pytest.raises(TableError) as error:
        cell(tmp_path, value, code)
    assert reason in str(error.value)


def test_days_since_1904_are_told_by_the_workbook(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    book.epoch = openpyxl.utils.datetime.CALENDAR_MAC_1904
    made = book.active
    assert isinstance(made, Worksheet)
    made.append(["day", "time"])
    made.append([dt.date(2024, 2, 29), dt.time(6)])
    book.save(tmp_path / "a.xlsx")
    assert read(tmp_path / "a.xlsx").rows[1] == ["2024-02-29", "06:00:00"]


def test_blank_rows_and_columns_are_left_out_and_lines_are_rows(tmp_path: Path) -> None:
    def fill(made: Worksheet) -> None:
        made["C3"], made["D3"] = "name", "score"
        made["C5"], made["D5"] = "Ann", 1
        made["C9"] = "Bob"
        made["A12"].number_format = "0.00"

    assert read(saved(tmp_path, fill)).rows == [["name", "score"], ["Ann", "1"], ["Bob", ""]]

    def twice(made: Worksheet) -> None:
        fill(made)
        made["D3"] = "name"

    with pytest.raises(TableError, match="line 3: the header names 'name' twice"):
        read(saved(tmp_path, twice))


def test_text_without_a_header_above_it_is_refused(tmp_path: Path) -> None:
    def right(made: Worksheet) -> None:
        made.append(["a", "b"])
        made.append([1, 2, 3])

    def left(made: Worksheet) -> None:
        made.append([None, "b"])
        made.append([1, 2])

    with pytest.raises(TableError, match="cell C2 holds text, but no header stands above it"):
        read(saved(tmp_path, right))
    with pytest.raises(TableError, match="column 1 of the header has no name"):
        read(saved(tmp_path, left))


def test_a_row_index_of_pandas_gets_the_name_that_is_set(tmp_path: Path) -> None:
    pd.DataFrame({"a": [5, 6]}).to_excel(tmp_path / "a.xlsx")
    found = read(tmp_path / "a.xlsx", Reading(first_column="row"))
    assert found.rows == [["row", "a"], ["0", "5"], ["1", "6"]]


def test_a_merged_cell_is_where_it_begins(tmp_path: Path) -> None:
    def fill(made: Worksheet) -> None:
        made.append(["class", "name"])
        made.append(["1a", "Ann"])
        made.append([None, "Bob"])
        made.merge_cells("A2:A3")

    assert read(saved(tmp_path, fill)).rows[1:] == [["1a", "Ann"], ["", "Bob"]]


def test_the_first_visible_sheet_is_read_or_the_one_that_is_named(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    for number, name in enumerate(("Hidden", "Märks", "Other")):
        made = book.create_sheet(name)
        made.append([name])
        made.append([number])
    del book["Sheet"]
    book["Hidden"].sheet_state = "hidden"
    path = tmp_path / "a.xlsx"
    book.save(path)
    found = read(path)
    assert found.rows == [["Märks"], ["1"]]
    assert found.notes == ["of its 2 sheets, the first was read: 'Märks'"]
    assert read(path, Reading(sheet="Other")).rows == [["Other"], ["2"]]
    assert read(path, Reading(sheet="Hidden")).rows == [["Hidden"], ["0"]]
    with pytest.raises(
        TableError, match="no sheet 'None'; its sheets are: 'Hidden', 'Märks', 'Oth"
    ):
        read(path, Reading(sheet="None"))


@given(
    st.lists(
        st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), max_size=5),
        min_size=1,
        max_size=9,
    )
)
@pytest.mark.exhaustive
def test_any_text_survives(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> None:
    def fill(made: Worksheet) -> None:
        made.append(["n", "text"])
        for text in texts:
            made.append(["x", None])
            made.cell(made.max_row, 2).value = text
            made.cell(made.max_row, 2).data_type = "s"

    folder = tmp_path_factory.mktemp("texts")
    assert [row[1] for row in read(saved(folder, fill)).rows[1:]] == texts


# --------------------------------------------------------------------------- by hand


TEXTS = """<si><r><t>rich </t></r><r><rPr><b/></rPr><t xml:space="preserve">text </t></r>
<rPh sb="0" eb="1"><t>spoken</t></rPh></si><si><t/></si><si><t>a_x000D_b_x005F_</t></si>"""

HEAD = '<row r="1"><c r="A1" t="inlineStr"><is><t>n</t></is></c></row>'


def text_of(folder: Path, inner: str, **how: Any) -> str:
    """What a cell is read as, by its XML."""
    return read(workbook(folder / "a.xlsx", f"{HEAD}<row>{inner}</row>", **how)).rows[1][0]


@pytest.mark.parametrize(
    ("inner", "text"),
    [
        ('<c t="s"><v>0</v></c>', "rich text "),
        ('<c t="s"><v>2</v></c>', "a\rb_"),
        ('<c t="str"><f>A1</f><v>x</v></c>', "x"),
        ('<c t="inlineStr"><is><r><t>a</t></r><r><t>b</t></r></is></c>', "ab"),
        ('<c t="b"><v>1</v></c>', "TRUE"),
        ('<c t="e"><f>NA()</f><v>#N/A</v></c>', "#N/A"),
        ('<c t="d"><v>2024-02-29T00:00:00</v></c>', "2024-02-29T00:00:00"),
        ("<c><f>1/4</f><v>0.25</v></c>", "0.25"),
        ("<c><v> 1E3 </v></c>", "1000"),
        ("<c><v>12345678901234567</v></c>", "12345678901234567"),
        ('<c t="inlineStr"><is><t>a_x001A_</t></is></c>', "a\x1a"),
        ("<c><v>-0</v></c>", "0"),
        ('<c s="1"><v>45351</v></c>', "2024-02-29"),
        ('<c s="2"><v>45351.5</v></c>', "45351.5"),
    ],
)
def test_each_type_of_cell_has_its_text(tmp_path: Path, inner: str, text: str) -> None:
    formats = ("dd/mm/yyyy", "&quot;day &quot;0.0")
    assert text_of(tmp_path, inner, texts=TEXTS, formats=formats) == text


@pytest.mark.parametrize(
    ("inner", "reason"),
    [
        ('<c t="s"><v>9</v></c>', "cell A2 is damaged"),
        ('<c t="s"><v>-1</v></c>', "cell A2 is damaged"),
        ('<c s="9"><v>1</v></c>', "cell A2 is damaged"),
        ('<c t="b"><v>2</v></c>', "cell A2 is damaged"),
        ("<c><v>one</v></c>", "cell A2 is damaged"),
        ("<c><v>nan</v></c>", "cell A2 is damaged"),
        ("<c><v>1_000</v></c>", "cell A2 is damaged"),
        ("<c><v>1\u0663</v></c>", "cell A2 is damaged"),
        ('<c s="1"><v>1e999</v></c>', "cell A2: the number inf is shown as a date, and is none"),
        (f'</row><row r="{"9" * 5000}"><c><v>1</v></c>', "the row after 2 is damaged"),
        ('</row><row r="x"><c><v>1</v></c>', "the row after 2 is damaged"),
        ("<c><f>1</f></c>", "cell A2: a formula without a value"),
        ('<c r="A2"><v>1</v></c><c r="A2"><v>1</v></c>', "the cells of row 2 are out of order"),
        ('<c r="XFE2"><v>1</v></c>', "the cells of row 2 are out of order, or too many"),
        ('<c r="2A"><v>1</v></c>', "it has a cell at '2A'"),
        ('</row><row r="1"><c><v>1</v></c>', "its rows are out of order: 1 after 2"),
        ('</row><row r="1048577"><c><v>1</v></c>', "its rows are out of order"),
        ("<c><v>1</c>", "a part of it is damaged: mismatched tag"),
    ],
)
def test_a_sheet_that_contradicts_itself_is_refused(
    tmp_path: Path, inner: str, reason: str
) -> None:
    with pytest.raises(TableError) as error:
        text_of(tmp_path, inner, formats=("yyyy-mm-dd",))
    assert reason in str(error.value)


@pytest.mark.parametrize("style", ["0", "1"])
def test_a_zero_of_a_writer_that_leaves_all_formulas_to_excel_is_refused(
    tmp_path: Path, style: str
) -> None:
    def found(inner: str, *, is_calculated: bool) -> str:
        told = f'<calcPr calcId="124519" fullCalcOnLoad="{int(not is_calculated)}"/>'
        return text_of(tmp_path, inner, properties=told, formats=("0.00",))

    zero = f'<c s="{style}"><f>SUM(B1:B9)</f><v>0</v></c>'

    assert found(zero, is_calculated=True) == "0"
    assert found("<c><v>0</v></c>", is_calculated=False) == "0"
    assert found("<c><f>1+1</f><v>2</v></c>", is_calculated=False) == "2"  # it was told the value
    with pytest.raises(TableError, match="cell A2: a formula that was never calculated; open it"):
        found(zero, is_calculated=False)


OTHERS: dict[str, tuple[Callable[[Path], object], str]] = {
    "text": (
        lambda path: path.write_bytes(b"a,b\n1,2\n"),
        "it is not an Excel workbook; rename it",
    ),
    "nothing": (lambda path: path.write_bytes(b""), "the file is empty"),
    "gzip": (lambda path: path.write_bytes(gzip(b"a")), "it is not an Excel workbook; rename it"),
    "an old workbook": (
        lambda path: path.write_bytes(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1".ljust(2000, b"\0")),
        "it is an old Excel workbook (.xls), or has a password; save it as .xlsx",
    ),
    "a password": (
        lambda path: path.write_bytes(
            b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1".ljust(2000, b"\0")
            + "EncryptedPackage".encode("utf-16-le")
        ),
        "it is protected by a password; save it without one",
    ),
    "cut off": (
        lambda path: path.write_bytes(workbook(path, HEAD).read_bytes()[:-30]),
        "it is damaged or cut off; send it again",
    ),
    "a document type": (
        lambda path: workbook(
            path,
            "",
            more={"xl/sheet1.xml": '<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>'},
        ),
        "declares a document type",
    ),
    "an encoding that nobody knows": (
        lambda path: workbook(
            path, "", more={"xl/sheet1.xml": '<?xml version="1.0" encoding="none"?><a/>'}
        ),
        "a part of it is in another encoding than UTF-8",
    ),
    "an encoding of several bytes": (
        lambda path: workbook(
            path, "", more={"xl/sheet1.xml": '<?xml version="1.0" encoding="shift_jis"?><a/>'}
        ),
        "a part of it is in another encoding than UTF-8",
    ),
    "no workbook": (
        lambda path: workbook(path, "", more={"_rels/.rels": "<a/>"}),
        "it is a zip archive, but no workbook",
    ),
    "no sheet": (lambda path: workbook(path, "", sheets=""), "it has no visible sheet"),
    "an empty sheet": (lambda path: workbook(path, ""), "the file is empty"),
    "a part too few": (
        lambda path: workbook(path, "", sheets='<sheet name="Two" sheetId="2" r:id="r2"/>'),
        "it has no part 'xl/sheet2.xml'",
    ),
    "a format of very many signs": (
        lambda path: workbook(path, "", formats=["[" * 1001]),
        "a number format has over 1,000 characters",
    ),
    "too deep": (
        lambda path: workbook(path, "", more={"xl/sheet1.xml": "<a>" * 100 + "</a>" * 100}),
        "has tags in over 64 others",
    ),
}


@pytest.mark.parametrize(("make", "reason"), OTHERS.values(), ids=OTHERS)
def test_what_is_no_workbook_is_refused_in_words(
    tmp_path: Path, make: Callable[[Path], object], reason: str
) -> None:
    path = tmp_path / "a.xlsx"
    make(path)
    with pytest.raises(TableError) as error:
        read(path)
    assert reason in str(error.value)


def anew(path: Path, name: Callable[[str], str]) -> Path:
    """Write an archive again, with other names of its members."""
    with zipfile.ZipFile(path) as archive:
        parts = {info.filename: archive.read(info) for info in archive.infolist()}
    with zipfile.ZipFile(path, "w") as archive:
        for old, content in parts.items():
            info = zipfile.ZipInfo()
            info.filename = name(old)
            archive.writestr(info, content)
    return path


def test_a_part_is_found_by_its_name_in_any_letters(tmp_path: Path) -> None:
    path = workbook(tmp_path / "a.xlsx", f'{HEAD}<row><c t="s"><v>2</v></c></row>', texts=TEXTS)
    assert read(anew(path, lambda name: name.replace("texts", "Texts"))).rows == [["n"], ["a\rb_"]]
    assert read(anew(path, lambda name: name.replace("/", "\\"))).rows == [["n"], ["a\rb_"]]


def test_a_part_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    path = workbook(tmp_path / "a.xlsx", HEAD)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("xl/Sheet1.xml", "<a/>")
    with pytest.raises(TableError, match="it has two parts 'xl/sheet1"):
        read(path)


def as_large(path: Path, list_bytes: int | None = None, moved: int = 0) -> Path:
    """Give an archive the end of a large one, as some programs always do."""
    content = path.read_bytes()
    at = content.rindex(b"PK\5\6")
    count, size, start = struct.unpack_from("<HII", content, at + 10)
    size = size if list_bytes is None else list_bytes
    large = struct.pack("<4sQHHIIQQQQ", b"PK\6\6", 44, 45, 45, 0, 0, count, count, size, start)
    place = struct.pack("<4sIQI", b"PK\6\7", 0, at + moved, 1)
    path.write_bytes(content[:at] + large + place + content[at:])
    return path


def test_a_small_archive_may_end_as_a_large_one(tmp_path: Path) -> None:
    path = workbook(tmp_path / "a.xlsx", f"{HEAD}<row><c><v>1</v></c></row>")
    assert read(as_large(path)).rows == [["n"], ["1"]]


def test_the_end_of_a_large_archive_is_where_it_says(tmp_path: Path) -> None:
    path = workbook(tmp_path / "a.xlsx", f"{HEAD}<row><c><v>1</v></c></row>")
    with pytest.raises(TableError, match="it is damaged or cut off"):
        read(as_large(path, moved=-1))


def test_a_list_that_is_long_in_the_end_of_a_large_archive_is_refused(tmp_path: Path) -> None:
    path = as_large(workbook(tmp_path / "a.xlsx", HEAD), 2**32)
    with pytest.raises(TableError, match="it is a zip archive of more parts than a workbook has"):
        read(path)


def test_a_fault_of_ours_is_not_told_as_damage(tmp_path: Path) -> None:
    path = workbook(tmp_path / "a.xlsx", HEAD)
    with path.open("rb") as file:
        archive = Archive(file, Allowance(path.stat().st_size, 1000, 200))
    with pytest.raises(ValueError, match="closed file"):
        archive.whole("xl/book.xml")


def test_the_number_of_a_format_may_be_of_any_length(tmp_path: Path) -> None:
    style = f'<a><cellXfs><xf numFmtId="{"9" * 5000}"/></cellXfs></a>'
    assert text_of(tmp_path, "<c><v>1</v></c>", more={"xl/styles.xml": style}) == "1"


def test_any_byte_that_is_wrong_is_told_or_of_no_weight(tmp_path: Path) -> None:
    path = workbook(tmp_path / "a.xlsx", HEAD + "<row><c><v>1</v></c></row>", texts=TEXTS)
    content = path.read_bytes()
    for place in range(0, len(content), 7):
        path.write_bytes(content[:place] + b"\xa5" + content[place + 1 :])
        try:
            read(path)
        except TableError:
            continue


# --------------------------------------------------------------------------- bombs


@pytest.mark.exhaustive
def test_a_million_empty_rows_are_no_rows(tmp_path: Path) -> None:
    rows = "".join(f'<row r="{row}"><c r="A{row}" s="0"/></row>' for row in range(2, 2**20))
    path = workbook(tmp_path / "a.xlsx", f"{HEAD}{rows}")
    said, memory_mb = read_apart(path)
    assert said == "0 rows"
    assert memory_mb < 300


def test_a_row_at_the_very_end_costs_no_memory(tmp_path: Path) -> None:
    path = workbook(tmp_path / "a.xlsx", f'{HEAD}<row r="{2**20}"><c><v>1</v></c></row>')
    said, memory_mb = read_apart(path)
    assert said == "1 rows"
    assert memory_mb < 300


BOMBS: dict[str, Callable[[Path], object]] = {
    "many cells": lambda path: workbook(path, HEAD + "<row><c><v>1</v></c></row>" * 10_000_000),
    "blanks": lambda path: workbook(path, HEAD + " " * 300_000_000),
    "one tag": lambda path: workbook(path, f'{HEAD}<row a="{"x" * 100_000_000}"/>'),
    "one text": lambda path: workbook(path, f"{HEAD}<row><c><v>{'1' * 100_000_000}</v></c></row>"),
    "many texts": lambda path: workbook(path, HEAD, texts="<si><t/></si>" * 10_000_000),
    "a text in many cells": lambda path: workbook(
        path,
        HEAD + '<row><c t="s"><v>0</v></c></row>' * 1_000_000,
        texts=f"<si><t>{'x' * 10_000_000}</t></si>",
    ),
    "a text of many parts": lambda path: workbook(
        path, HEAD, texts="<si>" + "<t>xx</t>" * 10_000_000 + "</si>"
    ),
    "a cell of many parts": lambda path: workbook(
        path, HEAD + '<row><c t="inlineStr"><is>' + "<t>xx</t>" * 10_000_000 + "</is></c></row>"
    ),
    "a text in many names": lambda path: workbook(
        path,
        "<row>" + '<c t="s"><v>0</v></c>' * 10_000 + "</row>",
        texts=f"<si><t>{'x' * 10_000_000}</t></si>",
    ),
    "many styles": lambda path: workbook(
        path, HEAD, more={"xl/styles.xml": "<cellXfs>" + "<xf/>" * 20_000_000 + "</cellXfs>"}
    ),
}


@pytest.mark.parametrize("make", BOMBS.values(), ids=BOMBS)
@pytest.mark.exhaustive
def test_a_bomb_is_refused_in_little_memory(tmp_path: Path, make: Callable[[Path], object]) -> None:
    path = tmp_path / "a.xlsx"
    make(path)
    assert path.stat().st_size < 2_000_000
    said, memory_mb = read_apart(path)
    assert said.startswith("TableError: ")
    assert memory_mb < 400


@pytest.mark.exhaustive
def test_texts_count_as_they_lie_in_memory(tmp_path: Path) -> None:
    wide = "x" * 300_000 + "\U0001f600"  # four bytes for each letter
    path = workbook(tmp_path / "a.xlsx", HEAD, texts=f"<si><t>{wide}</t></si>" * 500)
    said, _ = read_apart(path, ratio=5000)
    assert said == "TableError: its texts take over 512 MB of memory"


def test_very_many_relations_are_refused_in_little_memory(tmp_path: Path) -> None:
    relations = "".join(f'<Relationship Id="{number}"/>' for number in range(2_000_000))
    path = workbook(tmp_path / "a.xlsx", HEAD, more={"_rels/.rels": f"<a>{relations}</a>"})
    said, memory_mb = read_apart(path)
    assert said == "TableError: its part '_rels/.rels' is over 16 MB"
    assert memory_mb < 300


@pytest.mark.parametrize(("count", "name"), [(30_000, "x" * 100), (100_000, "x")])
@pytest.mark.exhaustive
def test_an_archive_of_very_many_parts_is_refused(tmp_path: Path, count: int, name: str) -> None:
    more = {f"{name}{number}": "" for number in range(count)}
    path = workbook(tmp_path / "a.xlsx", HEAD, more=more)
    said, memory_mb = read_apart(path)
    assert said == "TableError: it is a zip archive of more parts than a workbook has"
    assert memory_mb < 300


# --------------------------------------------------------------------------- laws


@given(st.integers(1, 16_384))
def test_a_column_has_one_name(number: int) -> None:
    assert number_of(f"{name_of(number)}7") == number


@given(st.integers(-(10**14), 10**14), st.integers(0, 6))
def test_a_number_that_a_person_types_is_read_as_typed(whole: int, places: int) -> None:
    typed = f"{whole / 10**places:.{places}f}"
    value = typed.rstrip("0").rstrip(".") if "." in typed else typed
    assert float(number_text(repr(float(typed)))) == float(typed)
    if len(value.lstrip("-").replace(".", "")) <= 15:
        assert number_text(repr(float(typed))) == ("0" if float(typed) == 0 else value)


@given(st.datetimes(dt.datetime(1900, 3, 1), dt.datetime(9999, 12, 31)))  # noqa: DTZ001
def test_a_moment_is_the_one_that_openpyxl_wrote(moment: dt.datetime) -> None:
    moment = moment.replace(microsecond=moment.microsecond // 1000 * 1000)
    days = openpyxl.utils.datetime.to_excel(moment)
    text = time_text(repr(days), Kind.MOMENT, since_1904=False)
    assert dt.datetime.fromisoformat(text) == moment


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("General", Kind.NUMBER),
        ("0.00E+00", Kind.NUMBER),
        ('0" days"', Kind.NUMBER),
        ('#,##0 "h"', Kind.NUMBER),
        (r"0\ \d", Kind.NUMBER),
        ("[Red]0", Kind.NUMBER),
        ("[$-F800]dddd, mmmm dd, yyyy", Kind.DATE),
        ("mmm-yy", Kind.DATE),
        ("yyyy-mm-dd hh:mm", Kind.MOMENT),
        ("mm:ss.0", Kind.TIME),
        ("h:mm AM/PM", Kind.TIME),
        ("[h]:mm", Kind.SPAN),
        ('[=0]"";yyyy-mm-dd', Kind.DATE),
        ('"a; b"yyyy', Kind.DATE),
        ("0;;;@", Kind.NUMBER),
        (";;;@", Kind.NUMBER),
        ('#,##0.00;"d";0', Kind.NUMBER),
        ("[mm]:ss", Kind.SPAN),
        ("@", Kind.NUMBER),
    ],
)
def test_a_number_format_says_what_a_number_means(code: str, kind: Kind) -> None:
    assert kind_of(code) is kind
