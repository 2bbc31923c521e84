"""Charts: where each bar stands. The template writes the elements."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import NamedTuple

from ds_flow.core import Document
from ds_flow.reports.parts import when

WIDTH, HEIGHT, LINE = 720, 120, 16
WIDEST, NARROWEST = 60.0, 2.0  # of a bar
DRAWN_JOBS = 40


class Column(NamedTuple):
    """One column, and what it stands for."""

    words: str
    value: int


def columns(title: str, values: Sequence[Column]) -> Document:
    """Columns side by side, the highest as high as the chart."""
    top = max((one.value for one in values), default=0)
    step = min(WIDTH / max(len(values), 1), WIDEST)
    bars = []
    for place, one in enumerate(values):
        height = HEIGHT * one.value / top if top else 0
        words = f"{when(one.words)}: {one.value:,}"
        bars.append(_bar(place * step + 1, HEIGHT - height, step - 2, height, words))
    ends = [values[0].words, values[-1].words] if values else ["", ""]
    if step == WIDEST:  # the last column is not at the end of the chart
        ends = [f"From left to right: {', '.join(one.words for one in values)}", ""]
    return {"title": title, "height": HEIGHT, "top": f"{top:,}", "ends": ends, "bars": bars}


def gantt(title: str, jobs: Sequence[Document]) -> Iterator[Document]:
    """The time of each job that is known, from the first beginning to the last end."""
    known = [one for one in jobs if one.get("started_at") and one.get("ended_at")]
    spans = [(_time(one["started_at"]), _time(one["ended_at"]), one) for one in known]
    spans = sorted(spans, key=lambda one: one[0])[:DRAWN_JOBS]
    if not spans:
        return
    first, last = spans[0][0], max(end for _, end, _ in spans)
    scale = WIDTH / max((last - first).total_seconds(), 0.001)
    bars = []
    for place, (start, end, job) in enumerate(spans):
        took_s = max(0.0, (end - start).total_seconds())
        where = f" on {job['host']}" if job.get("host") else ""
        words = f"{job.get('stage')} {job.get('index')}: {took_s:.1f} s{where}"
        x = min((start - first).total_seconds() * scale, WIDTH - NARROWEST)
        width = max(NARROWEST, took_s * scale)
        bars.append(_bar(x, place * LINE + 1, width, LINE - 2, words))
    ends = [first.isoformat(), last.isoformat()]
    height = len(spans) * LINE
    yield {"title": title, "height": height, "top": "", "ends": ends, "bars": bars}


def _bar(x: float, y: float, width: float, height: float, words: str) -> Document:
    sizes = {"x": x, "y": y, "width": max(width, 1.0), "height": height}
    return {**{name: round(value, 1) for name, value in sizes.items()}, "words": words}


def _time(at: str) -> datetime:
    return datetime.fromisoformat(at)
