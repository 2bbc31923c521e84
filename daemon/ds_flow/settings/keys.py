"""Every key of the settings file: its type, its bounds, its default and what it means."""

import re
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, Field, model_validator

from ds_flow.names import is_hostile
from ds_flow.scheduling import LOCAL, Timetable, known_zone
from ds_flow.settings.patterns import TEMPORARY, split

Executor = Literal["local", "lsf", "docker"]
Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]

DAY_SECONDS = 86_400
YEAR_MINUTES = 525_600
LONGEST_DAYS = 36_500
PATH_CHARACTERS = 1000
SELECTIONS = ("all", "failed", "since_last")

RENAMED: dict[str, str] = {}
"""Earlier names of keys, dotted, and their names of today, which a refusal gives."""


def _plain(text: str) -> str:
    if is_hostile(text):
        raise ValueError("holds a control character or one that cannot be encoded")
    return text


def _path(path: str) -> str:
    if path.startswith("~"):
        raise ValueError("`~` is not expanded; write the whole path")
    return path


def _pattern(pattern: str) -> str:
    name = pattern.rpartition("/")[2]
    if name in {"", ".", "..", "**"}:
        raise ValueError("names no file; end it with a pattern of file names, like `data/*.csv`")
    if any(TEMPORARY.fullmatch(glob) for glob in split(pattern)[1]):
        raise ValueError("means hidden or temporary files (.x *.tmp *.part *~), which never match")
    return pattern


def _encoding(name: str) -> str:
    try:
        "".encode(name)
    except (LookupError, ValueError):
        raise ValueError("is no text encoding that Python knows") from None
    return name.lower()


def _delimiter(delimiter: str) -> str:
    return "\t" if delimiter in {"tab", r"\t"} else delimiter


def _transform(spec: str) -> str:
    module, colon, function = spec.partition(":")
    if not (colon and all(part.isidentifier() for part in [*module.split("."), function])):
        raise ValueError("should be `module:function`")
    return spec


def _webhook(address: str) -> str:
    parts = urlsplit(address)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError("should be an address like https://host/path")
    return address


def _argument(text: str) -> str:
    if re.search("[\0\ud800-\udfff]", text):
        raise ValueError("holds a character that no command line can hold")
    return text


def _cron(cron: str) -> str:
    Timetable(cron)
    return cron


def _zone(zone: str) -> str:
    if zone != LOCAL:
        known_zone(zone)
    return zone


def _selection(select: str) -> str:
    if select not in SELECTIONS and not re.search("[/*?[]", select):
        words = ", ".join(SELECTIONS)
        raise ValueError(f"should be {words} or a pattern, like `data/student_a*.csv`")
    return select


# Bounds come right after the type: behind a validator they would not reach the JSON Schema.
Number = Annotated[float, Field(allow_inf_nan=False)]
Seconds = Annotated[Number, Field(gt=0, le=DAY_SECONDS)]
Minutes = Annotated[Number, Field(gt=0, le=YEAR_MINUTES)]
Count = Annotated[int, Field(ge=1)]
Days = Annotated[Number, Field(gt=0, le=LONGEST_DAYS)]
Text = Annotated[str, AfterValidator(_plain)]
Name = Annotated[str, Field(min_length=1, max_length=100), AfterValidator(_plain)]
PathText = Annotated[
    str,
    Field(min_length=1, max_length=PATH_CHARACTERS),
    AfterValidator(_plain),
    AfterValidator(_path),
]
Argument = Annotated[str, AfterValidator(_argument)]
Command = tuple[Argument, ...]


class Section(BaseModel, frozen=True, extra="forbid"):
    """A mapping of the settings file; one with nothing under it holds its defaults."""

    @model_validator(mode="before")
    @classmethod
    def _empty(cls, given: object) -> object:
        return {} if given is None else given


class Paths(Section, frozen=True):
    """Where files are; relative paths are relative to the project root."""

    input_pattern: Annotated[PathText, AfterValidator(_pattern)] = Field(
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
        default=720, description="Minutes without progress after which a run is ended."
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

    delimiter: Annotated[
        Literal["auto", ",", ";", "|", "tab", "\t", r"\t"], AfterValidator(_delimiter)
    ] = Field(
        default="auto", description="What separates cells; auto recognises `,` `;` tab and `|`."
    )
    encoding: Annotated[Text, AfterValidator(_encoding)] = Field(
        default="utf-8", description="The text encoding of the inputs, by its Python name."
    )
    columns: Literal["union", "strict"] = Field(
        default="union",
        description="When files of a batch differ in columns: combine all, or reject the odd ones.",
    )


class Stage(Section, frozen=True):
    """Where and with what the jobs of one stage run."""

    executor: Executor | None = Field(
        default=None, description="Where its jobs run; by default `compute.executor`."
    )
    cpus: Count = Field(default=1, le=4096, description="CPU cores of a job.")
    memory_mb: Count = Field(default=2048, le=2**30, description="MiB of memory of a job.")
    limit_minutes: Annotated[Count, Field(le=YEAR_MINUTES)] | None = Field(
        default=None, description="Minutes a job may take; by default `run.limit_minutes`."
    )
    queue: Text | None = Field(
        default=None, description="LSF queue; by default `compute.lsf_queue`."
    )
    image: Text | None = Field(
        default=None, description="Docker image; by default `compute.docker_image`."
    )


class Analyze(Stage, frozen=True):
    """The stage that analyses the combined file."""

    command: Command = Field(
        default=("wc", "-l"),
        description="Program and arguments, then the combined file; empty for no analysis.",
    )


class Stages(Section, frozen=True):
    """The stages of a run."""

    process: Stage = Field(default_factory=Stage, description="One input file to one output file.")
    combine: Stage = Field(
        default_factory=Stage, description="All output files to the combined file."
    )
    analyze: Analyze = Field(
        default_factory=Analyze, description="The combined file to the analysis."
    )


class Lsf(Section, frozen=True):
    """How to talk to the site's LSF."""

    extra: Command = Field(default=(), description="Further arguments of every bsub.")
    project: Text = Field(default="", description="The project that jobs are charged to (-P).")
    max_array: Count = Field(
        default=1000, le=1_000_000, description="Elements of one job array; more make several."
    )
    throttle: Annotated[int, Field(ge=0, le=1_000_000)] = Field(
        default=0, description="Elements of one array that run at once; 0 for no limit."
    )
    memory_unit: Literal["auto", "mb", "plain"] = Field(
        default="auto",
        description="How memory is asked for: with its unit, or as the plain numbers of an old LSF"
        " (KB for -M, MB for rusage); auto tries the unit first.",
    )
    poll_seconds: Seconds = Field(default=30, description="Seconds between two bjobs at most.")
    command_seconds: Seconds = Field(
        default=60, description="Seconds after which a call of an LSF command is given up."
    )
    grace_seconds: Seconds = Field(
        default=60,
        description="Seconds that a new job may be missing from bjobs, or an exit code from disk.",
    )
    unknown_minutes: Minutes = Field(
        default=60, description="Minutes that a job may be out of LSF's sight and counts as alive."
    )


class Docker(Section, frozen=True):
    """What containers may do; each setting widens the least."""

    pull: Literal["missing", "always", "never"] = Field(
        default="missing", description="When images are pulled."
    )
    max_parallel: Annotated[int, Field(ge=0, le=10_000)] = Field(
        default=0, description="Containers at once of a stage; 0: as the CPU cores allow."
    )
    network: Name = Field(default="none", description="The network of the containers.")
    pids: Count = Field(default=1024, le=2**22, description="Processes in one container.")
    read_only: bool = Field(
        default=True, description="Whether the image's own files are read-only."
    )
    capabilities: tuple[Name, ...] = Field(default=(), description="Capabilities to add to none.")
    extra: Command = Field(default=(), description="Further arguments of every docker run.")
    command_seconds: Seconds = Field(
        default=60, description="Seconds after which a call of the docker command is given up."
    )
    unknown_minutes: Minutes = Field(
        default=60, description="Minutes that the engine may be silent and jobs count as alive."
    )


class Compute(Section, frozen=True):
    """Where the stages run, and what they compute."""

    executor: Executor = Field(default="local", description="Where jobs run, for all stages.")
    lsf_queue: Name = Field(default="short", description="LSF queue, for all stages.")
    docker_image: Text = Field(default="", description="Docker image, for all stages.")
    docker_command: Argument = Field(
        default="docker", min_length=1, description="The engine's program: docker or podman."
    )
    memory_factor: Annotated[Number, Field(ge=1, le=16)] = Field(
        default=1.5, description="Times the memory for a job that had too little, done again."
    )
    lsf: Lsf = Field(default_factory=Lsf, description="How to talk to LSF.")
    docker: Docker = Field(default_factory=Docker, description="What containers may do.")
    shard_mb: Count = Field(
        default=64, le=2**20, description="MiB of input that one job processes."
    )
    max_shards: Count = Field(
        default=64, le=10_000, description="Jobs of the process stage at most."
    )
    transform: Annotated[Text, AfterValidator(_transform)] = Field(
        default="transforms:transform",
        description="`module:function` that each table goes through.",
    )
    stages: Stages = Field(default_factory=Stages, description="Settings of single stages.")


class Schedule(Section, frozen=True):
    """A rerun by the clock."""

    name: Name = Field(description="Its name, used once; `ds-flow schedule run NAME` fires it now.")
    cron: Annotated[Text, AfterValidator(_cron)] = Field(
        description="Minute, hour, day of the month, month and weekday, as in crontab(5)."
    )
    timezone: Annotated[Text, AfterValidator(_zone)] = Field(
        default=LOCAL, description="`local`, or a time zone like Europe/Berlin."
    )
    select: Annotated[Text, AfterValidator(_selection)] = Field(
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
    webhook: Annotated[Argument, AfterValidator(_webhook)] | None = Field(
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

    pattern: Annotated[PathText, AfterValidator(_pattern)] = Field(
        description="Which files, as in `paths.input_pattern`."
    )
    count: Count = Field(default=1, description="How many of them, at least.")
    by: Annotated[str, Field(pattern=r"^([01]\d|2[0-3]):[0-5]\d$")] = Field(
        description="The time of day, HH:MM, by which they should be there."
    )
    days: tuple[Day, ...] = Field(
        default=("mon", "tue", "wed", "thu", "fri", "sat", "sun"),
        min_length=1,
        description="The days of the week on which they should come.",
    )
    timezone: Annotated[str, AfterValidator(_zone)] = Field(
        default="local", description="`local`, or a time zone like Europe/Oslo."
    )


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
