"""The metrics: the ledger's figures in the text format of Prometheus."""

import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from importlib.metadata import version
from platform import python_version

from ds_flow.core import ENDED_RUNS, BatchState, Cause, Timetable, Trigger
from ds_flow.ledger import Histogram, Ledger
from ds_flow.settings import Settings
from ds_flow.system import disks, free_bytes

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

SPAN = timedelta(days=1)  # that the histograms and the missed fires cover
DURATIONS_S = (1, 2, 5, 10, 30, 60, 300, 900, 3600, 14400, 43200)
LATENCIES_S = (2, 5, 10, 30, 60, 300, 900, 3600, 14400, 43200, 86400)
PLACES = ("outputs", "logs", "ledger", "metaflow")  # the disks, in the order of `disks`

Sample = tuple[Mapping[str, str], float]  # labels and value


@dataclass(frozen=True, slots=True)
class Metric:
    """One family of samples."""

    name: str
    kind: str
    text: str
    samples: Iterable[Sample]


def metrics_text(settings: Settings, ledger: Ledger, pid: int | None, now: datetime) -> str:
    """Write all metrics, each with the project as a label. `pid` is the running daemon's."""
    own = {"project": settings.project_name}
    families = (
        *_service(settings, ledger, pid, now),
        *_line(ledger, now),
        *_results(ledger, now),
        *_schedules(settings, ledger, now),
    )
    return "".join(line for one in families for line in _lines(one, own))


# --------------------------------------------------------------------------- the families


def _service(
    settings: Settings, ledger: Ledger, pid: int | None, now: datetime
) -> Iterator[Metric]:
    versions = {"version": version("ds-flow"), "python_version": python_version()}
    yield _gauge("build_info", "The version of ds-flow. Always 1.", [(versions, 1)])
    yield _one("daemon_up", "Whether the daemon is running.", pid is not None)
    paused = ledger.pauses.line(settings.planned_pause(now), now)
    yield _one("paused", "Whether a pause keeps everything new from starting.", paused is not None)
    # A file for node_exporter stays as it is when nobody writes it any more. This tells its age.
    yield _one("collected_timestamp_seconds", "When these metrics were read.", now.timestamp())
    yield _gauge(
        "disk_free_bytes",
        "Bytes that ds-flow can still write where it keeps outputs, logs, ledger and runs.",
        _free(settings),
    )
    yield _one(
        "disk_needed_bytes",
        "run.min_free_mb: with less free, no new batch starts.",
        settings.run.min_free_mb * 2**20,
    )


def _free(settings: Settings) -> Iterator[Sample]:
    """A place whose disk does not say how much it has left gets no sample."""
    for place, folder in zip(PLACES, disks(settings), strict=True):
        there = next(path for path in (folder, *folder.parents) if path.is_dir())
        free = free_bytes(there)
        if free < sys.maxsize:
            yield {"place": place}, free


def _line(ledger: Ledger, now: datetime) -> Iterator[Metric]:
    files, batches = ledger.read.counts("file"), ledger.read.counts("batch")
    yield _gauge("files", "Versions of files, by state.", _by("state", files))
    yield _gauge("batches", "Batches, by state.", _by("state", _all(BatchState, batches)))
    causes = _all(Cause, ledger.figures.quarantined())
    yield _gauge("quarantined_files", "Quarantined versions, by cause.", _by("cause", causes))
    yield _one(
        "oldest_waiting_file_age_seconds",
        "How long the oldest file has waited for a batch; 0 if none waits.",
        _age_s(ledger.figures.waiting_since(), now),
    )
    yield _one(
        "oldest_unfinished_batch_age_seconds",
        "How long ago the oldest batch was formed that has not ended; 0 if all have.",
        _age_s(ledger.figures.unfinished_since(), now),
    )


def _results(ledger: Ledger, now: datetime) -> Iterator[Metric]:
    figures = ledger.figures
    counts = figures.ended_runs()
    ended = [
        ({"end": end, "trigger": why}, counts.get((end, why), 0))
        for end in ENDED_RUNS
        for why in Trigger
    ]
    yield Metric("runs_total", "counter", "Runs that have ended, by end and trigger.", ended)
    yield _one("runs_live", "Runs that have not ended.", len(ledger.read.live_runs()))
    out = figures.published()
    sizes = {"processed": out.own_bytes, "combined": out.combined_bytes}
    text = "Bytes of published outputs, by kind of output."
    yield Metric("published_bytes_total", "counter", text, _by("output", sizes))
    rows = {"processed": out.own_rows, "combined": out.combined_rows}
    text = "Rows of published outputs, by kind of output."
    yield Metric("published_rows_total", "counter", text, _by("output", rows))
    last = figures.last_success()
    yield _gauge(
        "last_success_timestamp_seconds",
        "When a run last published.",
        [({}, last.timestamp())] if last else [],
    )
    text = "Hand-overs of published runs that are not done yet."
    yield _one("deliveries_waiting", text, ledger.deliveries.waiting())
    failed = len(ledger.history.failed_analyses())
    yield _one("failed_analyses", "Published runs whose newest analysis failed.", failed)
    recent = f"in the last {SPAN // timedelta(hours=1)} hours. Not for rate()."
    yield _histogram(
        "recent_run_duration_seconds",
        f"How long runs took that ended {recent}",
        figures.durations(DURATIONS_S, now - SPAN),
    )
    yield _histogram(
        "recent_publish_latency_seconds",
        f"From a new file's arrival to its publication, for those published {recent}",
        figures.latencies(LATENCIES_S, now - SPAN),
    )


def _schedules(settings: Settings, ledger: Ledger, now: datetime) -> Iterator[Metric]:
    """The labels are the names in the settings. Schedules of the past have none."""
    missed = ledger.figures.missed_fires(now - SPAN)
    names = [one.name for one in settings.schedule]
    yield _gauge(
        "schedule_missed_fires",
        "Fires that were missed in the last 24 hours.",
        _by("schedule", {name: missed.get(name, 0) for name in names}),
    )
    due = (
        (one.name, Timetable(one.cron, one.timezone).next_after(now)) for one in settings.schedule
    )
    yield _gauge(
        "schedule_next_fire_timestamp_seconds",
        "When the schedule is due next.",
        _by("schedule", {name: at.timestamp() for name, at in due if at}),
    )
    fired = ((name, ledger.schedules.last(name)) for name in names)
    yield _gauge(
        "schedule_last_fire_timestamp_seconds",
        "When the schedule last fired, or was found to have missed its time.",
        _by("schedule", {name: last.at.timestamp() for name, last in fired if last}),
    )


# --------------------------------------------------------------------------- the format


def _gauge(name: str, text: str, samples: Iterable[Sample]) -> Metric:
    return Metric(name, "gauge", text, samples)


def _one(name: str, text: str, value: float) -> Metric:
    return _gauge(name, text, [({}, value)])


def _by(label: str, values: Mapping[str, float]) -> list[Sample]:
    return [({label: key}, value) for key, value in values.items()]


def _all(keys: Iterable[str], counts: Mapping[str, float]) -> dict[str, float]:
    """Add a zero for whatever is not there: Prometheus sees no increase in what has just begun."""
    return {str(key): counts.get(key, 0) for key in keys}


def _age_s(since: datetime | None, now: datetime) -> float:
    return max(0.0, (now - since).total_seconds()) if since else 0.0


def _histogram(name: str, text: str, found: Histogram) -> Metric:
    limits = [*map(str, found.limits), "+Inf"]
    counts = zip(limits, [*found.counts, found.count], strict=True)
    ends: list[Sample] = [({"": "_sum"}, found.total), ({"": "_count"}, found.count)]
    samples = [({"": "_bucket", "le": limit}, float(count)) for limit, count in counts]
    return Metric(name, "histogram", text, [*samples, *ends])


def _lines(metric: Metric, own: Mapping[str, str]) -> Iterator[str]:
    """A label without a name is the end of the sample's name. Without samples there is no line."""
    name = f"ds_flow_{metric.name}"
    head = f"# HELP {name} {metric.text}\n# TYPE {name} {metric.kind}\n"
    for labels, value in metric.samples:
        all_labels = {**own, **labels}
        end = all_labels.pop("", "")
        listed = ",".join(f'{key}="{_escaped(word)}"' for key, word in all_labels.items())
        yield f"{head}{name}{end}{{{listed}}} {float(value)!r}\n"
        head = ""


def _escaped(word: str) -> str:
    return word.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
