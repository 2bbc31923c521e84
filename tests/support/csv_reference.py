"""What a CSV text holds by Python's own reader, and whether that is a table."""

import csv
import io

Rows = list[list[str]]


def strict_rows(text: str, delimiter: str = ",") -> Rows | None:
    """All rows but empty ones; None where Python's strict reader refuses the text."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True, delimiter=delimiter)
    try:
        return [row for row in reader if row]
    except csv.Error:
        return None


def as_table(rows: Rows | None) -> Rows | None:
    """The rows without blanks at their end and columns that are nameless and empty, or None."""
    if not rows:
        return None
    rows = without_blank_end(rows)
    header, *others = rows
    if {len(row) for row in others} - {len(header)}:
        return None
    nameless = {number for number, name in enumerate(header) if not name.strip()}
    if any(row[number] for row in others for number in nameless):
        return None
    kept = [number for number in range(len(header)) if number not in nameless]
    names = [header[number] for number in kept]
    is_table = bool(names) and len(set(names)) == len(names)
    return [[row[number] for number in kept] for row in rows] if is_table else None


def without_blank_end(rows: Rows) -> Rows:
    """Leave out lines of blanks after the last row of several cells. An empty cell has quotes."""
    while len(rows[0]) > 1 and len(rows[-1]) == 1 and rows[-1][0] and not rows[-1][0].strip(" "):
        rows = rows[:-1]
    return rows
