"""The text that a cell of a spreadsheet shows, from its number and its number format.

- Whole numbers have the digits that are in the file. Others have at most 15, as in Excel, so
  0.1 + 0.2 is 0.3. They are not rounded as the
  format says, and have no currency or percent sign: 12.5 % is 0.125.
- A format of zeros, with signs between them, is that of a code, and not of a number. The code is as
  a person sees it: 00123 by `00000`, 012-34-5678 by `000-00-0000`.
- Dates and times are in ISO form.
"""

import re
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from functools import lru_cache

from csv_io.errors import TableError

DIGITS = 15
LONGEST = 21  # digits before the point; more are written with an exponent
DAY_MS = 86_400_000
NO_DAY = 60  # 29 February 1900, which Excel has, and the calendar does not
LAST_DAY = 2_958_466  # of the year 9999, and one more

PLAIN = re.compile(r"0|-?[1-9]\d{0,20}", re.ASCII)
NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)
LITERAL = re.compile(r'"[^"]*"|\\.|_.|\*.|\[(?!h+\]|m+\]|s+\])[^\]]*\]', re.IGNORECASE | re.DOTALL)
ELAPSED = re.compile(r"\[(?:h+|m+|s+)\]", re.IGNORECASE)
HALF_DAY = re.compile(r"am/pm|a/p", re.IGNORECASE)
DIGIT = "\0"  # in a template, for a digit; no XML has it
CODE = re.compile(
    r"""(?:\[(?:\$-[^]]*|[a-z]+ ?\d*)\])*((?:0|"[^"]*"|\\.|[-() ])+)(?:;.*)?""",
    re.IGNORECASE | re.DOTALL,
)
SIGN = re.compile(r'0|"([^"]*)"|\\?(.)', re.DOTALL)
FORMAT_CHARS = 1000  # Excel takes 255


class Kind(StrEnum):
    """What a number means by its format."""

    NUMBER = "number"
    DATE = "date"
    MOMENT = "moment"
    TIME = "time"
    SPAN = "span"


BUILT_IN = {
    **dict.fromkeys(map(str, (14, 15, 16, 17, *range(27, 32), 36, *range(50, 59))), Kind.DATE),
    **dict.fromkeys(map(str, (18, 19, 20, 21, 32, 33, 34, 35, 45, 47)), Kind.TIME),
    "22": Kind.MOMENT,
    "46": Kind.SPAN,
}
"""What the formats mean that have a number alone (ECMA-376, 18.8.30), except in rare languages."""


@lru_cache(maxsize=1000)
def kind_of(code: str) -> Kind:
    """What a number means by a format that is written out."""
    if len(code) > FORMAT_CHARS:
        raise TableError(f"a number format has over {FORMAT_CHARS:,} characters")
    # Where it has parts for positive numbers, negative ones and zero, the first may show nothing.
    parts = LITERAL.sub("", code).split(";")[:3]
    first = next(filter(str.strip, parts), "")
    if ELAPSED.search(first):
        return Kind.SPAN
    letters = HALF_DAY.sub("h", first).lower()
    if letters.strip() in {"general", "standard", "@", ""}:
        return Kind.NUMBER
    has_time, has_date = bool(set("hs") & set(letters)), bool(set("yd") & set(letters))
    if has_time:
        return Kind.MOMENT if has_date else Kind.TIME
    return Kind.DATE if has_date or "m" in letters else Kind.NUMBER


def template_of(code: str) -> str:
    """What a format of at least two zeros shows, with a DIGIT for each; "" for other formats."""
    found = CODE.fullmatch(code)
    if not found or kind_of(code) is not Kind.NUMBER:
        return ""
    template = SIGN.sub(
        lambda sign: DIGIT if sign[0] == "0" else sign[1] or sign[2] or "", found[1]
    )
    return template if template.count(DIGIT) > 1 else ""


def number_text(raw: str, template: str = "") -> str:
    """Write a number of a workbook without the noise of its floating point.

    Raises:
        ValueError: it is not a number.
    """
    if not PLAIN.fullmatch(raw):
        raw = _plain(raw)
    if template and raw.lstrip("-").isdecimal():
        return _filled(template, raw)
    return raw


def _filled(template: str, raw: str) -> str:
    """Put a whole number into a template. Digits that are too many stand before its first one."""
    sign, digits = ("-", raw[1:]) if raw.startswith("-") else ("", raw)
    count = template.count(DIGIT)
    digits = digits.zfill(count)
    head, *others = template.split(DIGIT)
    first = len(digits) - count + 1
    rest = zip(["", *digits[first:]], others, strict=True)
    return sign + head + digits[:first] + "".join(digit + text for digit, text in rest)


def _plain(raw: str) -> str:
    value = _value(raw)
    if abs(value) == float("inf"):
        raise ValueError(raw)
    short = Decimal(f"{value:.{DIGITS}g}")
    if not short:
        return "0"
    if not -LONGEST < short.adjusted() < LONGEST:
        return f"{short.normalize():E}"
    text = f"{short:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _value(raw: str) -> float:
    """Read a number as XML writes one: Python itself would take `1_000` and `nan`, too."""
    if not NUMBER.fullmatch(raw):
        raise ValueError(raw)
    return float(raw)


def time_text(raw: str, kind: Kind, *, since_1904: bool) -> str:
    """Write a number of days as a date or a time in ISO form.

    Raises:
        ValueError: it is not a number.
        TableError: no calendar has that day.
    """
    value = _value(raw)
    if abs(value) >= LAST_DAY:
        raise TableError(f"the number {value:.15g} is shown as a date, and is none")
    ms = round(value * DAY_MS)
    days, of_day = divmod(ms, DAY_MS)
    if kind is Kind.SPAN:
        return ("-" if ms < 0 else "") + _clock(abs(ms))
    if days < 0 or days >= LAST_DAY:
        raise TableError(f"the number {value:.15g} is shown as a date, and is none")
    if days == 0 and (kind is Kind.TIME or (of_day and not since_1904)):
        return _clock(of_day)
    day = _day(days, since_1904=since_1904)
    return day if kind is Kind.DATE and not of_day else f"{day}T{_clock(of_day)}"


def _day(days: int, *, since_1904: bool) -> str:
    if since_1904:
        return (datetime(1904, 1, 1) + timedelta(days)).date().isoformat()  # noqa: DTZ001 - no zone
    if days in {0, NO_DAY}:
        raise TableError(f"the number {days} is shown as a date, and is no day of the calendar")
    start = datetime(1899, 12, 31 if days < NO_DAY else 30)  # noqa: DTZ001 - no zone
    return (start + timedelta(days)).date().isoformat()


def _clock(ms: int) -> str:
    seconds, rest = divmod(ms, 1000)
    minutes, hours = seconds // 60 % 60, seconds // 3600
    return f"{hours:02}:{minutes:02}:{seconds % 60:02}" + (f".{rest:03}" if rest else "")
