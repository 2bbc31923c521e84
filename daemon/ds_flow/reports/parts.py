"""What the reports of a run and of a span have in common."""

from collections.abc import Iterator, Sequence
from datetime import datetime

from ds_flow.core import Document, counted, for_file, short_time

LISTED = 500  # rows of each table; the others are counted

Lists = dict[str, list[Document]]


def head(project: str, now: datetime) -> Document:
    """Say of which project a report is, and when it was made."""
    return {"project": project, "made_at": now.isoformat()}


def fact(name: str, value: object) -> Document:
    """One number, with its name."""
    return {"name": name, "value": value}


def problems(aside: int, drift: int) -> Iterator[str]:
    """Name files that were set aside, and drift."""
    if aside:
        yield f"{counted(aside, 'file')} set aside"
    if drift:
        yield f"{counted(drift, 'difference')} from earlier files"


def changes(outputs: Sequence[Document]) -> list[Document]:
    """The outputs that differ from those of the last run of the same selection."""
    return [one for one in outputs if one["compared"] in {"changed", "new"}]


def cut(lists: Lists) -> Document:
    """Each list up to a number of rows, and how many more there are."""
    more = {name: max(0, len(rows) - LISTED) for name, rows in lists.items()}
    return {**{name: rows[:LISTED] for name, rows in lists.items()}, "more": more}


def when(words: str) -> str:
    """A time as people write it, in local time; anything else as it is."""
    try:
        return short_time(words)
    except ValueError:
        return words


def told(aside: Document) -> Document:
    """A file that was set aside, with its line in the reason, and what a person can do."""
    line = f"line {aside['line']}: " if aside.get("line") is not None else ""
    remedy = for_file(aside["cause"], aside["path"])
    words = {"reason": line + aside["reason"], "remedy": remedy.text, "command": remedy.command}
    return {**aside, **words}
