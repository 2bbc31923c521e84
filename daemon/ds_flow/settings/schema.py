"""Every key of the settings file: its type, its bounds, its default and its meaning.

The larger groups are modules of their own: `arrivals`, `compute`, and `people` for what
others are told.
"""

from typing import Annotated, Literal

from pydantic import Field

from ds_flow.core import LOCAL, MAX_COLUMNS, MAX_UNPACKED_MB, MAX_UNPACKED_RATIO
from ds_flow.settings.arrivals import Batching, InboxRules, Watch
from ds_flow.settings.compute import Compute
from ds_flow.settings.people import Alerts, Expected, Lineage, Metaflow, Publish, Report, Web
from ds_flow.settings.types import (
    DAY_SECONDS,
    ColumnName,
    Count,
    Cron,
    Days,
    Delimiter,
    Encodings,
    Minutes,
    Name,
    Number,
    PathText,
    Pattern,
    Section,
    Selection,
    Text,
    Zone,
)

WEEK_MINUTES = 10_080

RENAMED: dict[str, str] = {}
"""Old names of keys, dotted, and their new names. The error for an old name gives the new one."""


class Paths(Section, frozen=True):
    """Where files are. Relative paths start at the project root."""

    input_pattern: Pattern = Field(
        description="Which files are inputs. `*`, `?`, `[...]` stay in a name; `**` spans folders."
    )
    output_dir: PathText = Field(description="Folder for the published files and `.work`.")
    log_dir: PathText = Field(description="Folder for the log files.")
    ledger: PathText | None = Field(
        default=None,
        description="The SQLite file that records every input; must be on a local disk."
        " Default: `ledger.db` in `output_dir`.",
    )


class Running(Section, frozen=True):
    """How runs are started, retried and ended."""

    max_parallel: Count = Field(
        default=1,
        le=1000,
        description="Most runs at the same time; one more while one of them is a rerun.",
    )
    attempts: Count = Field(
        default=3, le=100, description="Failed runs after which a batch is dead."
    )
    retry_first_seconds: Number = Field(
        default=10,
        ge=0,
        le=DAY_SECONDS,
        description="Seconds before the first retry. Each further retry waits longer.",
    )
    limit_minutes: Minutes = Field(
        default=720,
        description="Minutes without progress after which a run is ended. Waiting in a cluster's"
        " queue does not count.",
    )
    stop_grace_seconds: Number = Field(
        default=60,
        ge=0,
        le=DAY_SECONDS,
        description="Seconds that a run may continue when the daemon stops.",
    )
    min_free_mb: Annotated[int, Field(ge=0, le=2**30)] = Field(
        default=100, description="MiB that must stay free. With less, no batch forms or starts."
    )
    inherit: tuple[Name, ...] = Field(
        default=(),
        description="Further variables that runs inherit: names, in which * stands for anything.",
    )
    fork: bool = Field(
        default=True,
        description="Whether the tasks and local jobs of a run are forks of its first process.",
    )


class CsvFor(Section, frozen=True):
    """How the files of one source are read; what is left out is as for all files."""

    pattern: Pattern = Field(
        description="Which files; as in `paths.input_pattern`. The first entry that matches counts."
    )
    encoding: Encodings | None = Field(default=None, description="As `csv.encoding`.")
    delimiter: Delimiter | None = Field(default=None, description="As `csv.delimiter`.")
    first_column: Annotated[Text, Field(max_length=100)] | None = Field(
        default=None, description="As `csv.first_column`."
    )
    sheet: Annotated[Text, Field(max_length=100)] | None = Field(
        default=None, description="As `csv.sheet`."
    )


class Csv(Section, frozen=True):
    """How inputs are read."""

    delimiter: Delimiter = Field(
        default="auto",
        description="The character between cells. auto recognises `,` `;` tab and `|`.",
    )
    encoding: Encodings = Field(
        default="utf-8",
        description="The text encoding of the inputs, by its Python name; or a list of encodings,"
        " of which the first one that the whole file is in counts.",
    )
    first_column: Annotated[Text, Field(max_length=100)] = Field(
        default="",
        description="The name of a first column that has none, such as a row index of pandas."
        " Without it, such a file is rejected.",
    )
    sheet: Annotated[Text, Field(max_length=100)] = Field(
        default="", description="The sheet of a workbook. Default: the first one that is visible."
    )
    max_unpacked_mb: Count = Field(
        default=MAX_UNPACKED_MB,
        le=2**30,
        description="MiB that a packed input may have unpacked. One that has more is rejected.",
    )
    max_unpacked_ratio: Count = Field(
        default=MAX_UNPACKED_RATIO,
        le=2**30,
        description="Times that a packed input may become larger, beyond 64 MiB.",
    )
    for_: tuple[CsvFor, ...] = Field(
        default=(),
        alias="for",
        description="What is different for the files of one source; the first entry counts.",
    )
    columns: Literal["union", "strict"] = Field(
        default="union",
        description="If files differ in columns: combine all, or reject files unlike those"
        " published last, else unlike most files of the batch.",
    )
    max_columns: Annotated[int, Field(ge=1, le=1_000_000)] = Field(
        default=MAX_COLUMNS,
        description="How many columns a combined file may have. Files that would make it wider are"
        " rejected: first those with columns that few others have.",
    )
    required_columns: tuple[ColumnName, ...] = Field(
        default=(), description="Columns that each input must have. One that lacks any is rejected."
    )


class Outputs(Section, frozen=True):
    """What is published beside the CSV files."""

    parquet: bool = Field(
        default=False,
        description="Whether the combined file is published as Parquet, too; all columns are text.",
    )


class Privacy(Section, frozen=True):
    """What people may see of the inputs' cells."""

    hide_columns: tuple[ColumnName, ...] = Field(
        default=(),
        description="Columns whose values are shown nowhere but in the outputs: names, in which `*`"
        " and `?` stand for others. Case, blanks and punctuation do not count.",
    )


class Schedule(Section, frozen=True):
    """A rerun at fixed times."""

    name: Name = Field(description="A unique name. `ds-flow schedule run NAME` fires it now.")
    cron: Cron = Field(
        description="Minute, hour, day of the month, month and weekday, as in crontab(5); or"
        " @hourly, @daily, @midnight, @weekly, @monthly, @yearly, @annually."
    )
    timezone: Zone = Field(
        default=LOCAL, description="`local`, or a time zone such as Europe/Berlin."
    )
    select: Selection = Field(
        default="all",
        description="Which files: all (every published file), failed, since_last (files that no run"
        " of this schedule has published yet), or a pattern.",
    )
    catch_up: bool = Field(
        default=True,
        description="Whether a fire that was missed runs once when the daemon returns.",
    )
    skip_unchanged: bool = Field(
        default=False,
        description="If nothing has changed since the last run of these files, verify its outputs"
        " and do not run.",
    )

    @property
    def timetable(self) -> str:
        """The cron rule and its time zone, as one text."""
        return f"{self.cron} {self.timezone}"


class Maintenance(Section, frozen=True):
    """A time in which nothing new starts."""

    cron: Cron = Field(description="When it begins, as in `schedule`.")
    minutes: Annotated[Minutes, Field(le=WEEK_MINUTES)] = Field(
        description="How many minutes it lasts."
    )
    timezone: Zone = Field(
        default=LOCAL, description="`local`, or a time zone such as Europe/Berlin."
    )
    why: Annotated[Text, Field(max_length=200)] = Field(
        default="", description="The reason, for people."
    )


NIGHTLY = Schedule(name="nightly", cron="0 2 * * *", skip_unchanged=True)


class Logging(Section, frozen=True):
    """The daemon's log in `paths.log_dir`."""

    format: Literal["text", "json"] = Field(
        default="text", description="Lines for people (text) or programs (json)."
    )
    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        default="INFO", description="The lowest level that is written."
    )
    max_mb: Count = Field(
        default=16, le=2**20, description="MiB after which a new log file starts."
    )
    keep: Count = Field(default=5, le=1000, description="Number of old log files to keep.")


class Retention(Section, frozen=True):
    """What `ds-flow gc` removes; the daemon does this daily. Live and newest things always stay."""

    log_days: Days = Field(
        default=90,
        description="Days to keep the logs of runs, and receipts of files that are gone.",
    )
    metaflow_days: Days = Field(
        default=30, description="Days to keep Metaflow's record of a run, in `.metaflow`."
    )
    metaflow_count: Count = Field(
        default=500,
        description="Number of such records to keep, beside those of the last day. Each takes"
        " about 350 inodes and 1.4 MB.",
    )
    work_days: Days = Field(
        default=30, description="Days to keep the work directory of a dead batch."
    )
    event_days: Days = Field(
        default=365,
        description="Days of history to keep. The last event of each thing is always kept.",
    )
    archive_days: Days | None = Field(
        default=None, description="Days to keep inputs in `inbox.archive_dir`. Default: for ever."
    )
    output_days: Days | None = Field(
        default=None,
        description="Days to keep outputs after newer ones replaced them. Default: for ever.",
    )
    output_count: Count | None = Field(
        default=None,
        description="Number of runs of each file whose outputs are kept. Default: all.",
    )


class Keys(Section, frozen=True):
    """The settings of a ds-flow project."""

    project_name: Name = Field(description="The project's name. Every manifest has it.")
    paths: Paths
    watch: Watch = Field(default_factory=Watch)
    inbox: InboxRules = Field(default_factory=InboxRules)
    batch: Batching = Field(default_factory=Batching)
    run: Running = Field(default_factory=Running)
    csv: Csv = Field(default_factory=Csv)
    outputs: Outputs = Field(default_factory=Outputs)
    profile: bool = Field(
        default=True,
        description="Whether runs describe their inputs and the combined file, with first rows.",
    )
    privacy: Privacy = Field(default_factory=Privacy)
    compute: Compute = Field(default_factory=Compute)
    logging: Logging = Field(default_factory=Logging)
    schedule: tuple[Schedule, ...] = Field(
        default=(NIGHTLY,), description="Reruns at fixed times; [] for none."
    )
    maintenance: tuple[Maintenance, ...] = Field(
        default=(), description="Times by the clock in which nothing new starts."
    )
    retention: Retention = Field(default_factory=Retention)
    alerts: Alerts = Field(default_factory=Alerts)
    publish: Publish = Field(default_factory=Publish)
    lineage: Lineage = Field(default_factory=Lineage)
    metaflow: Metaflow = Field(default_factory=Metaflow)
    report: Report = Field(default_factory=Report)
    expect: tuple[Expected, ...] = Field(
        default=(), description="Files that should arrive every day."
    )
    web: Web = Field(default_factory=Web)
