"""Drawings as SVG: what stands where. The templates write the elements."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from statistics import median
from typing import Any

from ds_flow.core import STAGES
from ds_flow.ledger import Done
from ds_flow.web.words import number, span

DAYS, HOURS = 30, 24
HEIGHT, STEP, GAP = 100.0, 10.0, 2.0  # of a column chart, in its own units
WIDTH = 1000.0  # of a time line
LEAST_WIDTH = 4.0
DRAWN_JOBS = 60
LESS = "under 1 s"  # the times of jobs are whole seconds


@dataclass(frozen=True, slots=True)
class Column:
    """One span of time in a chart."""

    label: str
    value: float  # the height of the column
    mark: float  # the height of the line above it; equal if there is none
    words: str


@dataclass(frozen=True, slots=True)
class Bar:
    """One column as a rectangle."""

    x: float
    y: float
    width: float
    height: float
    mark_y: float
    words: str


@dataclass(frozen=True, slots=True)
class Chart:
    """Columns with their scale."""

    columns: list[Column]
    top: float

    @property
    def width(self) -> float:
        """Of all columns."""
        return STEP * len(self.columns)

    @property
    def bars(self) -> list[Bar]:
        """Where each column stands."""
        return [self._bar(place, one) for place, one in enumerate(self.columns)]

    def _bar(self, place: int, one: Column) -> Bar:
        height = HEIGHT * one.value / self.top
        return Bar(
            x=STEP * place + GAP / 2,
            y=round(HEIGHT - height, 2),
            width=STEP - GAP,
            height=round(height, 2),
            mark_y=round(HEIGHT - HEIGHT * one.mark / self.top, 2),
            words=f"{one.label}: {one.words}",
        )

    @property
    def labels(self) -> list[str]:
        """The first, the middle and the last span of time."""
        names = [one.label for one in self.columns]
        return [names[0], names[len(names) // 2], names[-1]]


# --------------------------------------------------------------------------- over time


def throughput(done: Sequence[Done], now: datetime) -> Chart:
    """How many files were published in each hour of a day, or on each day of a month."""
    columns = []
    for label, runs in _by_time(done, now):
        files, rows = sum(run.files for run in runs), sum(run.rows for run in runs)
        bad = sum(run.state != "succeeded" for run in runs)
        failed = f", {bad} failed" if bad else ""
        words = f"{_some(files, 'file')}, {_some(rows, 'row')} in {_some(len(runs), 'run')}{failed}"
        columns.append(Column(label, files, files, words))
    return Chart(columns, _nice(max(one.value for one in columns)))


def _some(count: int, noun: str) -> str:
    return f"{number(count)} {noun}{'s' * (count != 1)}"


def latency(done: Sequence[Done], now: datetime) -> Chart:
    """How long it took from a batch to its publication: the middle of the runs, and the longest."""
    columns = []
    good = [run for run in done if run.state == "succeeded"]
    for label, runs in _by_time(good, now):
        took = [(run.ended_at - run.formed_at).total_seconds() for run in runs]
        middle, longest = (median(took), max(took)) if took else (0.0, 0.0)
        words = f"half within {span(middle)}, all within {span(longest)}" if took else "no run"
        columns.append(Column(label, max(middle, 0), max(longest, 0), words))
    return Chart(columns, _nice(max(one.mark for one in columns)))


def _by_time(done: Sequence[Done], now: datetime) -> Iterable[tuple[str, list[Done]]]:
    """Sort runs by the hour if the last 24 hours on the clock hold all, else by the day."""
    here = now.astimezone()
    first = here.replace(minute=0, second=0, microsecond=0) - timedelta(hours=HOURS - 1)
    if all(run.ended_at >= first for run in done):
        starts = [first + timedelta(hours=on) for on in range(HOURS)]
        form = "%H:00"
    else:
        starts = [here - timedelta(days=back) for back in range(DAYS - 1, -1, -1)]
        form = "%d %b"
    spans: dict[str, list[Done]] = {start.strftime(form): [] for start in starts}
    for run in done:
        label = run.ended_at.astimezone().strftime(form)
        if label in spans:
            spans[label].append(run)
    return spans.items()


def _nice(value: float) -> float:
    """The end of a scale: the next of 1, 2, 4, 5, 10, 20, …"""
    if value <= 1:
        return 1.0
    unit = 10.0 ** math.floor(math.log10(value))
    return next(unit * step for step in (1, 2, 4, 5, 10) if unit * step >= value)


# --------------------------------------------------------------------------- the jobs of a run


@dataclass(frozen=True, slots=True)
class Line:
    """One job on the time line of its run: where it waited, and where it worked."""

    job: Mapping[str, Any]
    wait_x: float
    x: float
    width: float
    took: str


@dataclass(frozen=True, slots=True)
class TimeLine:
    """The jobs of a run, by stage."""

    lines: list[Line]
    left_out: int
    ticks: list[str]


def time_line(jobs: Sequence[Mapping[str, Any]], now: datetime) -> TimeLine | None:
    """Draw the jobs of a run in the order in which they began; None if none has begun."""
    spans = [(_start(job), _end(job, now), job) for job in jobs]
    known = sorted(
        ((start, end, job) for start, end, job in spans if start),
        key=lambda one: (one[0], STAGES.index(one[2]["stage"]), one[2]["index"]),
    )
    if not known:
        return None
    first = known[0][0]
    whole_s = max(1.0, *((end - first).total_seconds() for _, end, _ in known))
    lines = [_line(one, first, whole_s) for one in known[:DRAWN_JOBS]]
    ticks = [span(whole_s * part / 4) if part else "0" for part in range(5)]
    return TimeLine(lines, len(known) - len(lines), ticks)


def _line(
    one: tuple[datetime, datetime, Mapping[str, Any]], first: datetime, whole_s: float
) -> Line:
    start, end, job = one
    began = _at(job, "started_at") or start

    def x_of(at: datetime) -> float:
        return round(WIDTH * (at - first).total_seconds() / whole_s, 1)

    width = max(LEAST_WIDTH, x_of(end) - x_of(began))
    x = min(x_of(began), WIDTH - LEAST_WIDTH)
    took_s = (end - began).total_seconds()
    return Line(job, x_of(start), x, width, span(took_s) if took_s else LESS)


def _start(job: Mapping[str, Any]) -> datetime | None:
    return _at(job, "submitted_at") or _at(job, "started_at")


def _end(job: Mapping[str, Any], now: datetime) -> datetime:
    return _at(job, "ended_at") or now


def _at(job: Mapping[str, Any], name: str) -> datetime | None:
    return datetime.fromisoformat(job[name]) if job.get(name) else None
