"""Every key of the settings file: its type, its bounds, its default and what it means."""

from typing import Annotated, Literal

from pydantic import Field

from ds_flow.core import LOCAL
from ds_flow.settings.compute import Compute
from ds_flow.settings.types import (
    DAY_SECONDS,
    Command,
    Count,
    Cron,
    Day,
    Days,
    Delimiter,
    Encoding,
    Minutes,
    Name,
    Number,
    PathText,
    Pattern,
    Seconds,
    Section,
    Selection,
    Webhook,
    Zone,
)

RENAMED: dict[str, str] = {}
"""Earlier names of keys, dotted, and their names of today, which a refusal gives."""


class Paths(Section, frozen=True):
    """Where files are; relative paths are relative to the project root."""

    input_pattern: Pattern = Field(
        description="Which files are inputs: `*`, `?`, `[...]` within a name, `**` over folders."
    )
    output_dir: PathText = Field(description="Folder of the published files and of `.work`.")
    log_dir: PathText = Field(description="Folder of the log files.")
    ledger: PathText | None = Field(
        default=None,
        description="The SQLite file that accounts for every input, on a local disk;"
        " by default `ledger.db` in `output_dir`.",
    )


class Watch(Section, frozen=True):
    """How arriving files are noticed."""

    observer: Literal["auto", "inotify", "poll"] = Field(
        default="auto",
        description="What wakes the daemon; auto polls where a file system has no events.",
    )
    quiet_seconds: Seconds = Field(
        default=0.5, description="Seconds a file must stay unchanged to count as arrived."
    )
    rescan_seconds: Seconds = Field(
        default=60, description="Seconds after which the inbox is looked at even without an event."
    )
    poll_seconds: Seconds = Field(
        default=5, description="Seconds between two looks where the file system gives no events."
    )


class Batching(Section, frozen=True):
    """When waiting files make a batch: as soon as one of the limits is reached."""

    quiet_seconds: Seconds = Field(default=1, description="Seconds without a new file.")
    max_wait_seconds: Seconds = Field(default=30, description="Seconds the oldest file has waited.")
    max_files: Count = Field(default=1000, le=1_000_000, description="Files that wait.")
    max_mb: Count = Field(default=4096, le=2**30, description="MiB that wait.")


class Running(Section, frozen=True):
    """How runs are started, retried and ended."""

    max_parallel: Count = Field(
        default=1, le=1000, description="Runs at one time; one more beside reruns."
    )
    attempts: Count = Field(
        default=3, le=100, description="Failed runs after which a batch is dead."
    )
    retry_first_seconds: Number = Field(
        default=10,
        ge=0,
        le=DAY_SECONDS,
        description="Seconds before the first retry; then ever longer.",
    )
    limit_minutes: Minutes = Field(
        default=720,
        description="Minutes without progress after which a run is ended; to wait in LSF's queue"
        " is progress.",
    )
    stop_grace_seconds: Number = Field(
        default=60,
        ge=0,
        le=DAY_SECONDS,
        description="Seconds a run may go on when the daemon stops.",
    )
    min_free_mb: Annotated[int, Field(ge=0, le=2**30)] = Field(
        default=100, description="MiB that must stay free; with less, no batch forms or starts."
    )


class Csv(Section, frozen=True):
    """How inputs are read."""

    delimiter: Delimiter = Field(
        default="auto", description="What separates cells; auto recognises `,` `;` tab and `|`."
    )
    encoding: Encoding = Field(
        default="utf-8", description="The text encoding of the inputs, by its Python name."
    )
    columns: Literal["union", "strict"] = Field(
        default="union",
        description="When files of a batch differ in columns: combine all, or reject the odd ones.",
    )


class Schedule(Section, frozen=True):
    """A rerun by the clock."""

    name: Name = Field(description="Its name, used once; `ds-flow schedule run NAME` fires it now.")
    cron: Cron = Field(
        description="Minute, hour, day of the month, month and weekday, as in crontab(5)."
    )
    timezone: Zone = Field(default=LOCAL, description="`local`, or a time zone like Europe/Berlin.")
    select: Selection = Field(
        default="all",
        description="Which files: all that were published, failed, since_last (those that no run"
        " of this schedule has published yet), or a pattern.",
    )
    catch_up: bool = Field(
        default=True,
        description="Whether a fire that was missed happens, once, as soon as the daemon is back.",
    )
    skip_unchanged: bool = Field(
        default=False,
        description="Whether, where nothing has changed since the last run of these files, its"
        " outputs are verified in place of a run.",
    )

    @property
    def timetable(self) -> str:
        """What its fires come from, in one text."""
        return f"{self.cron} {self.timezone}"


NIGHTLY = Schedule(name="nightly", cron="0 2 * * *", skip_unchanged=True)


class Logging(Section, frozen=True):
    """The log in `paths.log_dir`."""

    format: Literal["text", "json"] = Field(
        default="text", description="Lines for people or machines."
    )
    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        default="INFO", description="The least important lines that are written."
    )
    max_mb: Count = Field(
        default=16, le=2**20, description="MiB after which a new log file is begun."
    )
    keep: Count = Field(default=5, le=1000, description="Old log files that are kept.")


class Retention(Section, frozen=True):
    """What `ds-flow gc` removes, and the daemon once a day. What lives or is newest stays."""

    log_days: Days = Field(default=90, description="Days that the logs of runs are kept.")
    metaflow_days: Days = Field(
        default=30, description="Days that Metaflow's record of a run is kept, in `.metaflow`."
    )
    work_days: Days = Field(
        default=30, description="Days that the work directory of a dead batch is kept."
    )
    event_days: Days = Field(
        default=365, description="Days of history; the last event of a thing is kept for ever."
    )
    output_days: Days | None = Field(
        default=None,
        description="Days that outputs are kept which newer ones replaced; by default for ever.",
    )
    output_count: Count | None = Field(
        default=None,
        description="Runs whose outputs of a file are kept, the newest; by default all.",
    )


class Alerts(Section, frozen=True):
    """Who is told of what a person should know."""

    command: Command = Field(
        default=(),
        description="Program and arguments that get each alert as JSON on standard input.",
    )
    webhook: Webhook | None = Field(
        default=None, description="Address that each alert is posted to, as JSON; kept secret."
    )
    every_minutes: Minutes = Field(
        default=60, description="Minutes between two alerts of one kind; the later has the count."
    )
    limit_seconds: Seconds = Field(
        default=30, description="Seconds that the command or the webhook may take."
    )


class Expected(Section, frozen=True):
    """Files that should come every day."""

    pattern: Pattern = Field(description="Which files, as in `paths.input_pattern`.")
    count: Count = Field(default=1, description="How many of them, at least.")
    by: Annotated[str, Field(pattern=r"^([01]\d|2[0-3]):[0-5]\d$")] = Field(
        description="The time of day, HH:MM, by which they should be there."
    )
    days: tuple[Day, ...] = Field(
        default=("mon", "tue", "wed", "thu", "fri", "sat", "sun"),
        min_length=1,
        description="The days of the week on which they should come.",
    )
    timezone: Zone = Field(default="local", description="`local`, or a time zone like Europe/Oslo.")


class Keys(Section, frozen=True):
    """The settings of a ds-flow project."""

    project_name: Name = Field(description="The project's name, in every manifest.")
    paths: Paths
    watch: Watch = Field(default_factory=Watch)
    batch: Batching = Field(default_factory=Batching)
    run: Running = Field(default_factory=Running)
    csv: Csv = Field(default_factory=Csv)
    compute: Compute = Field(default_factory=Compute)
    logging: Logging = Field(default_factory=Logging)
    schedule: tuple[Schedule, ...] = Field(
        default=(NIGHTLY,), description="Reruns by the clock; [] for none."
    )
    retention: Retention = Field(default_factory=Retention)
    alerts: Alerts = Field(default_factory=Alerts)
    expect: tuple[Expected, ...] = Field(default=(), description="Files that should come.")
