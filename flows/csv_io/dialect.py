"""Which delimiter a text has: announced by its first line, or found in its first records.

The rules, in this order. A delimiter *fits* if it splits the header and the first records into the
same number of cells, at least two.

1. A first line such as `sep=;` decides.
2. If one delimiter fits, and no other splits most records into more cells, it is the one.
3. Else those are dropped for which a quote stands in the middle of a cell.
4. Else a delimiter that a space always follows (`Doe, Ann`) loses against one that makes more
   cells and that no space follows.
5. If several are left, the text is ambiguous, and refused.
6. If none splits the header, it is a table of one column. A title, a lone line and a text that a
   character splits which is no delimiter here are refused.

DuckDB prefers the most cells, and CleverCSV scores patterns and types. Both always choose. Here a
wrong choice would be published, so a tie is refused.
"""

import csv
import io
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice

from csv_io.errors import TableError

DELIMITERS = ",;\t|"
OTHER_MARKS = "^~\x1f\x01: "
WIDE = 3  # cells that `:` and a space must make: two are a time, or a name
SAMPLE_BYTES = 2**16
SAMPLE_RECORDS = 100

ANNOUNCED = re.compile(rb'"?sep=([^\w"\r\n\x80-\xff])"?\1*(?:\r{0,2}\n|\r|\Z)', re.IGNORECASE)
COMMENT = re.compile(
    rb"\s*#(?:[^\r\n]*: |(?:[^\r\n]*[\r\n]+#)+[^\r\n]*[\r\n]+[^#\r\n])"  # `# by: Ann`, or several
)
LINE_ENDS = re.compile(rb"\r{0,2}\n|\r")

CR_ENDS, LF_ENDS = b"\r", b"\n"
ONE_COLUMN = "to read it as one column, set csv.delimiter"


@dataclass(frozen=True, slots=True)
class Split:
    """What a delimiter makes of the first records."""

    delimiter: str
    widths: Sequence[int]  # the cells of each record; never empty

    @property
    def header(self) -> int:
        """The number of names."""
        return self.widths[0]

    @property
    def fits(self) -> bool:
        """Whether all records have as many cells as the header, at least two."""
        return self.header > 1 and len(set(self.widths)) == 1

    @property
    def fits_most(self) -> bool:
        """Whether more than half of the other records have as many cells as the header."""
        return 2 * (self.widths.count(self.header) - 1) > len(self.widths) - 1

    @property
    def common(self) -> int:
        """How many cells more than half of the records below the first have; 0 if none do."""
        others = self.widths[1:]
        width, count = Counter(others).most_common(1)[0] if others else (0, 0)
        return width if 2 * count > len(others) else 0


def announced(text: bytes) -> tuple[str, int]:
    """The delimiter that a first line `sep=;` names, and the line's length; "" and 0 if none."""
    found = ANNOUNCED.match(text)
    return (found[1].decode(), found.end()) if found else ("", 0)


def line_end(text: bytes) -> bytes:
    """What ends the first line outside quotes: CR as on an old Mac, or LF (CRLF, CRCRLF)."""
    quotes = last = 0
    for end in LINE_ENDS.finditer(text):
        quotes += text.count(b'"', last, end.start())
        last = end.end()
        if quotes % 2 == 0:
            return CR_ENDS if end[0] == b"\r" else LF_ENDS
    return LF_ENDS


def sniffed(sample: bytes) -> str:
    """Choose the delimiter by the rules above.

    Where none fits, it is the one that splits the header most, so that the error is of use.

    Raises:
        TableError: two delimiters fit equally well, or none fits and it is not one column.
    """
    splits = [split_by(sample, delimiter) for delimiter in DELIMITERS]
    fitting = [split for split in splits if split.fits]
    if COMMENT.match(sample):
        raise TableError("it begins with a comment; remove it, or set csv.delimiter", 1)
    if not fitting:
        refuse_title(splits)
        if all(split.header == 1 for split in splits):
            refuse_lone_line(sample, splits[0])
            refuse_other_marks(sample)
        return max(splits, key=lambda split: split.header).delimiter
    widest = max(split.header for split in fitting)
    rivals = [split for split in splits if split.header > widest and split.fits_most]
    left = strongest(sample, [*fitting, *rivals])
    if len(left) > 1:
        both = " and ".join(repr(split.delimiter) for split in left)
        raise TableError(f"{both} may each be the delimiter; set csv.delimiter")
    return left[0].delimiter


def strongest(sample: bytes, splits: Sequence[Split]) -> Sequence[Split]:
    """Drop the delimiters against which quotes or spaces speak (rules 3 and 4)."""
    if len(splits) > 1:
        splits = [one for one in splits if is_well_quoted(sample, one.delimiter)] or splits
    bare = re.sub(rb'"[^"]*"', b"", sample)
    wide = [one.header for one in splits if not follows_space(bare, one.delimiter, some=True)]
    return [
        one
        for one in splits
        if one.header >= max(wide, default=0) or not follows_space(bare, one.delimiter, some=False)
    ]


def follows_space(text: bytes, delimiter: str, *, some: bool) -> bool:
    """Whether a space follows the delimiter: everywhere, or (`some`) anywhere."""
    mark = delimiter.encode()
    spaced = text.count(mark + b" ")
    return spaced > 0 if some else spaced == text.count(mark)


def is_well_quoted(sample: bytes, delimiter: str) -> bool:
    """Whether each quote is at a cell's border or beside another quote."""
    other = rb'[^\r\n"' + re.escape(delimiter.encode()) + rb"]"
    return re.search(other + b'"' + other, sample) is None


def refuse_title(splits: Sequence[Split]) -> None:
    """Refuse a line of one cell above a table: it would be read as a table of one column."""
    for split in splits:
        if split.header == 1 and split.common > 1:
            raise TableError(
                f"with {split.delimiter!r} the first line is 1 cell, and most others are "
                f"{split.common}; remove a title, or set csv.delimiter",
                1,
            )


def refuse_lone_line(sample: bytes, split: Split) -> None:
    """Refuse one line of text: more often a failed download than a header without rows."""
    is_whole = len(sample) < SAMPLE_BYTES and sample.count(b'"') % 2 == 0
    if len(split.widths) == 1 and is_whole and sample.strip():
        raise TableError(f"it is one line of text without a delimiter; {ONE_COLUMN}", 1)


def refuse_other_marks(sample: bytes) -> None:
    """Refuse a table of one column that a character splits which is no delimiter here."""
    for mark in OTHER_MARKS:
        split = split_by(sample, mark)
        is_wide = split.header >= WIDE or mark not in ": "
        if split.fits and is_wide and len(split.widths) > 1:
            problem = f"{mark!r} splits all lines alike, but only , ; tab and | are delimiters"
            raise TableError(f"{problem}; {ONE_COLUMN}", 1)


@lru_cache(maxsize=1)
def first_lines(sample: bytes) -> tuple[Sequence[str], int]:
    """The first lines of a text, and how many are not blank, for every delimiter in turn."""
    text = io.StringIO(sample.decode(errors="ignore"), newline="")
    lines = list(islice(text, SAMPLE_RECORDS))
    return lines, len(list(filter(str.strip, lines)))


def split_by(sample: bytes, delimiter: str) -> Split:
    """Count the cells of the sample's first records, without a last one that may be cut.

    A line of blanks is left out: after the last record, it is none.
    """
    if b'"' in sample:
        lines = io.StringIO(sample.decode(errors="ignore"), newline="")
        rows = islice(csv.reader(lines, delimiter=delimiter), SAMPLE_RECORDS)
        found = [len(row) for row in rows if "".join(row).strip() or row[1:]]
    else:
        first, filled = first_lines(sample)
        found = [1] * filled
        if delimiter.encode() in sample:
            real = (line for line in first if line.strip() or delimiter in line)
            found = [1 + line.count(delimiter) for line in real]
    is_cut = len(sample) >= SAMPLE_BYTES and len(found) > 1
    return Split(delimiter, found[: -1 if is_cut else None] or [1])
