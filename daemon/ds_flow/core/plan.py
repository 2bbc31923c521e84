"""The plan of a batch: its files and the settings that decide its outputs, frozen.

`StageOptions`, `LsfSite`, `SlurmSite` and `DockerSite` repeat sections of `settings/compute.py`.
Two are needed: a plan is read in images that carry no pydantic. tests/unit/test_plan.py holds
their names and defaults equal.
"""

import math
import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Self

from ds_flow.core.paths import unescape
from ds_flow.core.reading import Encodings, Reading, SourceOptions, encodings_of, reading_of

FILE_COST_BYTES = 2**16  # to open and write a small file costs as much as to read this
TASK_COST_BYTES = 2**24  # less work than this is done before another task has begun
WORK = ".work"  # the folder of all work directories, in the output folder


MAX_COLUMNS = 16_384  # of a combined file, unless a plan says otherwise: a spreadsheet's limit
MAX_UNPACKED_MB, MAX_UNPACKED_RATIO = 16_384, 200  # of a packed file, unless a plan says otherwise


@dataclass(frozen=True, slots=True, kw_only=True)
class StageOptions:
    """Where and with what one stage's jobs run."""

    executor: str = "local"
    cpus: int = 1
    memory_mb: int = 2048
    limit_minutes: float = 720
    queue: str = ""
    image: str = ""
    extra: tuple[str, ...] = ()
    command: tuple[str, ...] = ()

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Self:
        """Read what `asdict` wrote."""
        lists = {name: tuple(row.get(name, ())) for name in ("extra", "command")}
        return cls(**{**row, **lists})


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterSite:
    """How to talk to a cluster: what LSF and Slurm have in common."""

    extra: tuple[str, ...] = ()
    max_array: int = 1000
    throttle: int = 0
    submissions_per_minute: int = 0
    pending_minutes: float = 0
    poll_seconds: float = 30
    command_seconds: float = 60
    grace_seconds: float = 60
    unknown_minutes: float = 60

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Self:
        """Read what `asdict` wrote."""
        return cls(**{**row, "extra": tuple(row.get("extra", ()))})


@dataclass(frozen=True, slots=True, kw_only=True)
class LsfSite(ClusterSite):
    """How to talk to this site's LSF; `compute.lsf` of the settings."""

    project: str = ""
    memory_unit: str = "auto"
    memory_per: str = "job"


@dataclass(frozen=True, slots=True, kw_only=True)
class SlurmSite(ClusterSite):
    """How to talk to this site's Slurm; `compute.slurm` of the settings."""

    partition: str = ""
    account: str = ""
    qos: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DockerSite:
    """How to talk to this host's container engine; `compute.docker` of the settings."""

    command: str = "docker"
    pull: str = "missing"
    max_parallel: int = 0
    network: str = "none"
    pids: int = 1024
    read_only: bool = True
    capabilities: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()
    command_seconds: float = 60
    unknown_minutes: float = 60

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Self:
        """Read what `asdict` wrote."""
        lists = {name: tuple(row.get(name, ())) for name in ("capabilities", "extra")}
        return cls(**{**row, **lists})


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """The settings of all backends, the same for every stage."""

    memory_factor: float = 1.5  # times the memory for a job that had too little
    memory_limit_mb: int = 0  # of such a job, at most; 0 for no limit
    lsf: LsfSite = field(default_factory=LsfSite)
    slurm: SlurmSite = field(default_factory=SlurmSite)
    docker: DockerSite = field(default_factory=DockerSite)

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Self:
        """Read what `asdict` wrote."""
        lsf, docker = LsfSite.from_json(row["lsf"]), DockerSite.from_json(row["docker"])
        slurm = SlurmSite.from_json(row.get("slurm", {}))  # a plan of an older version has none
        return cls(**{**row, "lsf": lsf, "slurm": slurm, "docker": docker})


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The settings that decide a batch's outputs, frozen for all its attempts."""

    project_name: str
    root: str  # absolute, as are the other folders; in a plan on disk they are relative
    output_dir: str
    log_dir: str
    inbox: str = ""  # the folder that holds all inputs
    tag: str = ""
    delimiter: str = "auto"
    encoding: Encodings = "utf-8"
    first_column: str = ""  # the name of a first column that has none
    sheet: str = ""  # of a workbook; "" for the first one
    max_unpacked_mb: int = MAX_UNPACKED_MB
    max_unpacked_ratio: int = MAX_UNPACKED_RATIO
    for_: tuple[SourceOptions, ...] = ()  # what differs from these for the files of one source
    columns: str = "union"
    max_columns: int = MAX_COLUMNS
    required_columns: tuple[str, ...] = ()
    parquet: bool = False  # whether the combined file is published as Parquet, too
    profile: bool = True  # of inputs and of the combined file
    hide_columns: tuple[str, ...] = ()  # values of these are nowhere but in the outputs
    transform: str = "transforms:transform"
    shard_mb: float = 64
    max_shards: int = 64
    stages: Mapping[str, StageOptions] = field(default_factory=dict)
    site: Site = field(default_factory=Site)

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Self:
        """Read what `asdict` wrote; raises TypeError or KeyError on any other shape."""
        stages = {name: StageOptions.from_json(stage) for name, stage in row["stages"].items()}
        # A plan of an older version has no site.
        site = Site.from_json(row["site"]) if "site" in row else Site()
        own = {
            "encoding": encodings_of(row["encoding"]),
            "for_": tuple(map(SourceOptions.from_json, row.get("for_", ()))),
            "required_columns": tuple(row.get("required_columns", ())),
            "hide_columns": tuple(row.get("hide_columns", ())),
        }
        return cls(**{**row, **own, "stages": stages, "site": site})

    def reading(self, path: str) -> Reading:
        """Say how a file is read, by its raw path, which starts at the project."""
        general = Reading(
            encoding=self.encoding,
            delimiter=self.delimiter,
            first_column=self.first_column,
            sheet=self.sheet,
        )
        return reading_of(posixpath.join(self.root, path), self.for_, general)

    def portable(self) -> Self:
        """Make folders inside the project relative to it, and the project to `output_dir`.

        So a project that is moved in the middle of a batch goes on with it. Plans of an older
        version have absolute folders.
        """
        if not posixpath.isabs(self.root):
            return self
        root, output_dir = self.root, self.output_dir
        return replace(
            self,
            root=posixpath.relpath(root, output_dir) if _is_in(output_dir, root) else root,
            output_dir=_relative(output_dir, root),
            log_dir=_relative(self.log_dir, root),
            inbox=_relative(self.inbox, root),
            for_=tuple(replace(one, pattern=_relative(one.pattern, root)) for one in self.for_),
        )

    def located(self, output_dir: str) -> Self:
        """Make every folder absolute, as seen from where the output folder is now."""
        put = self.portable()
        root = posixpath.normpath(posixpath.join(output_dir, put.root))
        return replace(
            put,
            root=root,
            output_dir=output_dir,
            log_dir=posixpath.normpath(posixpath.join(root, put.log_dir)),
            inbox=put.inbox and posixpath.normpath(posixpath.join(root, put.inbox)),
            for_=tuple(
                replace(one, pattern=posixpath.normpath(posixpath.join(root, one.pattern)))
                for one in self.for_
            ),
        )


def _is_in(folder: str, root: str) -> bool:
    return posixpath.commonpath([folder, root]) == root


def _relative(folder: str, root: str) -> str:
    is_inside = posixpath.isabs(folder) and _is_in(folder, root)
    return posixpath.relpath(folder, root) if is_inside else folder


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedFile:
    """One file of a batch. A run by hand knows neither its version nor its hash beforehand."""

    path: str
    version: int | None
    sha256: str | None
    size_bytes: int
    kept_at: str = ""  # where ds-flow puts or has put it, as a path of the ledger

    def places(self, root: str, inbox: str) -> tuple[tuple[str, str], ...]:
        """Where its content may be, each with the folder that the way to it must not leave.

        Tried in this order, they find a file that leaves the inbox meanwhile, too.
        """
        came = posixpath.join(root, unescape(self.path)), inbox or "/"
        if not self.kept_at:
            return (came,)
        kept = posixpath.join(root, unescape(self.kept_at)), "/"
        return kept, came, kept


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a batch is made of: `batch.json`, written once and read by every attempt."""

    batch: str
    trigger: str
    formed_at: str
    files: tuple[PlannedFile, ...]
    options: Options
    selection: str = ""  # what a rerun is over
    compare_with: str = ""  # Run ID of the last run of the same selection

    def to_json(self) -> dict[str, Any]:
        """One JSON object."""
        return asdict(self)

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Self:
        """Read what `to_json` wrote; raises TypeError or KeyError on any other shape."""
        files = tuple(PlannedFile(**planned) for planned in row["files"])
        return cls(**{**row, "files": files, "options": Options.from_json(row["options"])})


def cut_groups(
    files: Sequence[PlannedFile], options: Options, tasks: int
) -> list[list[list[PlannedFile]]]:
    """Cut a batch's files, in order, into a group of shards for each of at most `tasks` tasks.

    Groups cost about the same, and so do the shards of a group: at most about `shard_mb`, unless
    that makes more than `max_shards`. A file costs its bytes and `FILE_COST_BYTES`.
    """
    cost = sum(map(_cost, files))
    shard = min(math.ceil(options.shard_mb * 2**20), TASK_COST_BYTES)
    groups = _cut_evenly(files, min(tasks, options.max_shards, -(-cost // shard)))
    return [_cut_evenly(group, _count_shards(group, options, len(groups))) for group in groups]


def _count_shards(group: Sequence[PlannedFile], options: Options, groups: int) -> int:
    wanted = -(-sum(map(_cost, group)) // math.ceil(options.shard_mb * 2**20))
    return min(wanted, options.max_shards // groups)


def _cut_evenly(files: Sequence[PlannedFile], parts: int) -> list[list[PlannedFile]]:
    """Cut files, in order, into at most so many parts that cost about the same."""
    total, before = sum(map(_cost, files)), 0
    cut: dict[int, list[PlannedFile]] = {}
    for file in files:
        middle = before + _cost(file) / 2
        cut.setdefault(int(middle * parts / total), []).append(file)
        before += _cost(file)
    return list(cut.values())


def _cost(file: PlannedFile) -> int:
    return file.size_bytes + FILE_COST_BYTES
