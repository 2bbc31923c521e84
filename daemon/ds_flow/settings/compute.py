"""The keys under `compute`: where the stages run, and what they compute."""

from typing import Annotated, Literal

from pydantic import Field

from ds_flow.settings.types import (
    Argument,
    Command,
    Count,
    Executor,
    Minutes,
    Name,
    Number,
    Seconds,
    Section,
    Text,
    TransformSpec,
)


class Stage(Section, frozen=True):
    """Where and with what the jobs of one stage run."""

    executor: Executor | None = Field(
        default=None, description="Where its jobs run; by default `compute.executor`."
    )
    cpus: Count = Field(default=1, le=4096, description="CPU cores of a job.")
    memory_mb: Count = Field(default=2048, le=2**30, description="MiB of memory of a job.")
    limit_minutes: Minutes | None = Field(
        default=None,
        description="Minutes a job may take, on LSF rounded up; by default `run.limit_minutes`.",
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
        default=1.5,
        description="Times the memory for a job that had too little, done again: twice at most.",
    )
    lsf: Lsf = Field(default_factory=Lsf, description="How to talk to LSF.")
    docker: Docker = Field(default_factory=Docker, description="What containers may do.")
    shard_mb: Count = Field(
        default=64, le=2**20, description="MiB of input that one job processes."
    )
    max_shards: Count = Field(
        default=64, le=10_000, description="Jobs of the process stage at most."
    )
    transform: TransformSpec = Field(
        default="transforms:transform",
        description="`module:function` that each table goes through.",
    )
    stages: Stages = Field(default_factory=Stages, description="Settings of single stages.")
