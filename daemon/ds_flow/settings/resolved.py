"""The settings in force: typed, with absolute paths and every default filled in."""

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from functools import reduce
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from ds_flow.core import (
    CARD,
    DEFAULT_VARIABLES,
    FORK,
    GIVEN_NAMES,
    SECRET_CHARACTERS,
    STAGES,
    WORK,
    DockerSite,
    LsfSite,
    Options,
    Pause,
    Site,
    SlurmSite,
    SourceOptions,
    StageOptions,
    inherited_variables,
    pinned_variables,
    planned_pause,
    split,
)
from ds_flow.settings.arrivals import Batching, InboxRules, Watch
from ds_flow.settings.compute import Analyze, Compute
from ds_flow.settings.people import Alerts, Expected, Lineage, Metaflow, Publish, Report, Web
from ds_flow.settings.schema import (
    Csv,
    CsvFor,
    Keys,
    Logging,
    Maintenance,
    Outputs,
    Paths,
    Privacy,
    Retention,
    Running,
    Schedule,
)
from ds_flow.settings.sources import PREFIX, Loc, Origin

TAG_VARIABLE = "PROCESS_TAG"
HIDDEN = "***"

SECRETS: tuple[Loc, ...] = (
    ("alerts", "webhook"),
    ("lineage", "url"),
    ("lineage", "token"),
    ("metaflow", "url"),
    ("metaflow", "auth_key"),
    ("web", "token"),
    ("alerts", "heartbeat"),
    ("alerts", "email", "password"),
)
"""Their values may hold tokens or passwords, so no message shows them."""


FIELDS = {"inbox": "inbox_rules"}
"""Fields of `Settings` that are named otherwise than their section: `inbox` is the folder."""


def sections_of(keys: Keys) -> dict[str, Any]:
    """The fields of `Settings` that its file decides."""
    return {FIELDS.get(name, name): getattr(keys, name) for name in Keys.model_fields}


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings of a project. They are read once and never changed."""

    file: Path
    root: Path  # the parent of the folder that holds the file, absolute
    project_name: str
    paths: Paths
    watch: Watch
    inbox_rules: InboxRules  # the section `inbox`
    batch: Batching
    run: Running
    csv: Csv
    privacy: Privacy
    outputs: Outputs
    profile: bool
    compute: Compute
    logging: Logging
    schedule: tuple[Schedule, ...]
    maintenance: tuple[Maintenance, ...]
    retention: Retention
    alerts: Alerts
    publish: Publish
    lineage: Lineage
    metaflow: Metaflow
    report: Report
    expect: tuple[Expected, ...]
    web: Web
    tag: str
    dotenv: Mapping[str, str] = field(repr=False)  # every run gets these, with the values in force
    origins: Mapping[Loc, Origin] = field(repr=False)
    refused: str = ""  # why those in the file are bad, where these are a running daemon's own

    @property
    def pattern(self) -> str:
        """The input pattern, absolute."""
        return self.whole(self.paths.input_pattern)

    def whole(self, pattern: str) -> str:
        """Make a pattern absolute."""
        return os.path.normpath(self.root / pattern)

    @property
    def inbox(self) -> Path:
        """The folder where a search for the pattern starts, absolute."""
        return Path(split(self.pattern)[0])

    @property
    def archive_dir(self) -> Path:
        """Absolute."""
        return self._absolute(self.inbox_rules.archive_dir)

    @property
    def rejected_dir(self) -> Path:
        """Absolute."""
        return self._absolute(self.inbox_rules.rejected_dir)

    @property
    def output_dir(self) -> Path:
        """Absolute."""
        return self._absolute(self.paths.output_dir)

    @property
    def log_dir(self) -> Path:
        """Absolute."""
        return self._absolute(self.paths.log_dir)

    @property
    def ledger(self) -> Path:
        """Absolute."""
        given = self.paths.ledger
        return self.output_dir / "ledger.db" if given is None else self._absolute(given)

    @property
    def lineage_file(self) -> Path | None:
        """Absolute."""
        return self._absolute(self.lineage.file) if self.lineage.file else None

    @property
    def handed_to(self) -> tuple[str, ...]:
        """The commands that get each publication, each as JSON, as the ledger knows them."""
        return tuple(dict.fromkeys(json.dumps(command) for command in self.publish.then))

    @property
    def work_root(self) -> Path:
        """The folder that holds each batch until it is committed and recorded."""
        return self.output_dir / WORK

    def planned_pause(self, now: datetime) -> Pause | None:
        """The pause that `maintenance` plans for this moment: of several, the last to end."""
        found = [
            planned_pause(one.cron, one.timezone, timedelta(minutes=one.minutes), one.why, now)
            for one in self.maintenance
        ]
        open_now = [one for one in found if one is not None]
        return max(open_now, key=lambda one: one.until_at or now, default=None)

    @property
    def secrets(self) -> frozenset[str]:
        """Texts that no log may show."""
        hidden = {
            value
            for name, value in self.dotenv.items()
            if len(value) >= SECRET_CHARACTERS
            and not name.startswith(PREFIX)
            and name != TAG_VARIABLE
        }
        own = (reduce(getattr, loc, self) for loc in SECRETS)
        return frozenset(hidden | {str(value) for value in own if value})

    def run_environment(self, environ: Mapping[str, str]) -> dict[str, str]:
        """Return the variables of a run. Inherited ones override `.env`; pinned ones override both.

        So a published result does not depend on who calls.

        DS_FLOW_GIVEN names the variables from `.env`, and DS_FLOW_MASK the secret ones among them.
        """
        secret = [name for name, value in self.dotenv.items() if value in self.secrets]
        own = {
            "DS_FLOW_CONFIG": str(self.file),
            GIVEN_NAMES: ",".join(self.dotenv),
            "DS_FLOW_MASK": ",".join(secret),
            FORK: str(self.run.fork).lower(),
            CARD: str(self.report.card).lower(),
        }
        cores = len(os.sched_getaffinity(0))
        return {
            **DEFAULT_VARIABLES,
            **self.dotenv,
            **self.inherited(environ),
            **pinned_variables(str(self.root), cores),
            **own,
        }

    def inherited(self, environ: Mapping[str, str]) -> dict[str, str]:
        """Return what a program that ds-flow starts inherits from the caller."""
        return inherited_variables(environ, self.run.inherit)

    @property
    def stages(self) -> dict[str, StageOptions]:
        """The settings of each stage. A stage's own override those for all stages."""
        return {name: self._stage(name) for name in STAGES}

    def options(self) -> Options:
        """Return the settings that decide a batch's outputs."""
        return Options(
            project_name=self.project_name,
            root=str(self.root),
            output_dir=str(self.output_dir),
            log_dir=str(self.log_dir),
            inbox=str(self.inbox),
            tag=self.tag,
            delimiter=self.csv.delimiter,
            encoding=self.csv.encoding,
            first_column=self.csv.first_column,
            sheet=self.csv.sheet,
            max_unpacked_mb=self.csv.max_unpacked_mb,
            max_unpacked_ratio=self.csv.max_unpacked_ratio,
            for_=tuple(self._source(one) for one in self.csv.for_),
            columns=self.csv.columns,
            max_columns=self.csv.max_columns,
            required_columns=self.csv.required_columns,
            parquet=self.outputs.parquet,
            profile=self.profile,
            hide_columns=self.privacy.hide_columns,
            transform=self.compute.transform,
            shard_mb=self.compute.shard_mb,
            max_shards=self.compute.max_shards,
            stages=self.stages,
            site=self.site,
        )

    def _source(self, one: CsvFor) -> SourceOptions:
        return SourceOptions(**{**one.model_dump(), "pattern": self.whole(one.pattern)})

    @property
    def site(self) -> Site:
        """The settings of the backends."""
        compute = self.compute
        return Site(
            memory_factor=compute.memory_factor,
            memory_limit_mb=compute.memory_limit_mb,
            lsf=LsfSite(**compute.lsf.model_dump()),
            slurm=SlurmSite(**compute.slurm.model_dump()),
            docker=DockerSite(command=compute.docker_command, **compute.docker.model_dump()),
        )

    def _absolute(self, path: str) -> Path:
        return Path(os.path.normpath(self.root / path))

    def _stage(self, name: str) -> StageOptions:
        own = getattr(self.compute.stages, name)
        executor = own.executor or self.compute.executor
        slurm, lsf_queue = self.compute.slurm, self.compute.lsf_queue
        queue = slurm.partition if executor == "slurm" else lsf_queue
        return StageOptions(
            executor=executor,
            cpus=own.cpus,
            memory_mb=own.memory_mb,
            limit_minutes=own.limit_minutes or self.run.limit_minutes,
            queue=queue if own.queue is None else own.queue,
            image=self.compute.docker_image if own.image is None else own.image,
            extra=own.extra,
            command=own.command if isinstance(own, Analyze) else (),
        )


def effective(settings: Settings) -> str:
    """Write the settings in force as a settings file, with each origin as a comment.

    For `.env`, only the names are shown.
    """
    hidden = [f"#   {name}: ***" for name in settings.dotenv]
    comments = [f"# tag: {json.dumps(settings.tag)}", *(["# .env:", *hidden] if hidden else [])]
    return "\n".join([*_lines(_tree(settings), (), settings.origins), *comments, ""])


def _tree(settings: Settings) -> dict[str, Any]:
    tree: dict[str, Any] = {"project_name": settings.project_name}
    for name in [name for name in Keys.model_fields if name not in tree]:
        tree[name] = _plain(getattr(settings, FIELDS.get(name, name)))
    tree["paths"]["ledger"] = str(settings.ledger)
    _hide(tree, HIDDEN)
    for name, stage in tree["compute"]["stages"].items():
        resolved = asdict(settings.stages[name])
        stage.update((key, resolved[key]) for key in stage)
    return tree


def shown(settings: Settings) -> dict[str, Any]:
    """The settings as a tree without secrets, which can be validated again."""
    tree: dict[str, Any] = {"project_name": settings.project_name}
    for name in [name for name in Keys.model_fields if name not in tree]:
        tree[name] = _plain(getattr(settings, FIELDS.get(name, name)))
    _hide(tree, None)
    return tree


def _hide(tree: dict[str, Any], instead: str | None) -> None:
    for *sections, key in SECRETS:
        holder = reduce(dict.__getitem__, sections, tree)
        holder[key] = holder[key] and instead


def _plain(section: object) -> Any:
    if isinstance(section, tuple):
        return [_plain(item) for item in section]
    return section.model_dump(by_alias=True) if isinstance(section, BaseModel) else section


def _lines(tree: Mapping[str, Any], loc: Loc, origins: Mapping[Loc, Origin]) -> Iterator[str]:
    for key, value in tree.items():
        here = (*loc, key)
        start = "  " * len(loc) + key
        if isinstance(value, dict):
            yield f"{start}:"
            yield from _lines(value, here, origins)
        else:
            yield f"{start}: {json.dumps(value)}  # {origins.get(here, 'default')}"
