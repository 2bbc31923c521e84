"""The keys under `compute`: where the stages run, and what they compute."""

from typing import Annotated, Literal

from pydantic import Field

from ds_flow.settings.types import (
    YEAR_MINUTES,
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
    """Where the jobs of one stage run, and with what resources."""

    executor: Executor | None = Field(
        default=None, description="Where its jobs run. Default: `compute.executor`."
    )
    cpus: Count = Field(default=1, le=4096, description="CPU cores for each job.")
    memory_mb: Count = Field(default=2048, le=2**30, description="MiB of memory for each job.")
    limit_minutes: Minutes | None = Field(
        default=None,
        description="Minutes that a job may take (clusters: rounded up). Default:"
        " `run.limit_minutes`.",
    )
    queue: Text | None = Field(
        default=None,
        description="LSF queue or Slurm partition. Default: `compute.lsf_queue`, or"
        " `compute.slurm.partition`.",
    )
    image: Text | None = Field(
        default=None, description="Docker image. Default: `compute.docker_image`."
    )
    extra: Command = Field(
        default=(), description="Extra arguments for this stage's bsub, sbatch or docker run."
    )


class Analyze(Stage, frozen=True):
    """The stage that analyses the combined file."""

    command: Command = Field(
        default=("wc", "-l"),
        description="Program and arguments. The combined file is added; [] for no analysis.",
    )


class Stages(Section, frozen=True):
    """The stages of a run."""

    process: Stage = Field(
        default_factory=Stage, description="Makes one output file of each input file."
    )
    combine: Stage = Field(
        default_factory=Stage, description="Makes the combined file of all output files."
    )
    analyze: Analyze = Field(default_factory=Analyze, description="Analyses the combined file.")


class Cluster(Section, frozen=True):
    """How a cluster is called: what LSF and Slurm have in common."""

    extra: Command = Field(default=(), description="Extra arguments for every submission.")
    max_array: Count = Field(
        default=1000,
        le=1_000_000,
        description="Most elements in one job array. More jobs make several arrays.",
    )
    throttle: Annotated[int, Field(ge=0, le=1_000_000)] = Field(
        default=0, description="Most elements of one array that run at once; 0 for no limit."
    )
    submissions_per_minute: Annotated[int, Field(ge=0, le=100_000)] = Field(
        default=0, description="Most submissions of a stage in a minute; 0 for no limit."
    )
    pending_minutes: Annotated[Number, Field(ge=0, le=YEAR_MINUTES)] = Field(
        default=0, description="Minutes that a job may wait in the queue; 0 for no limit."
    )
    poll_seconds: Seconds = Field(
        default=30, description="Most seconds between two questions about all jobs."
    )
    command_seconds: Seconds = Field(
        default=60, description="Seconds that one command of the cluster may take."
    )
    grace_seconds: Seconds = Field(
        default=60,
        description="Seconds that a new job may not be listed, or an exit code be missing.",
    )
    unknown_minutes: Minutes = Field(
        default=60, description="Minutes after which a job that is no longer reported is lost."
    )


class Lsf(Cluster, frozen=True):
    """How the LSF of this site is called."""

    project: Text = Field(default="", description="LSF project for the jobs (-P).")
    memory_unit: Literal["auto", "mb", "plain"] = Field(
        default="auto",
        description="How memory is requested: mb (with a unit), or plain (numbers for an old LSF:"
        " KB for -M, MB for rusage). auto tries the unit first.",
    )
    memory_per: Literal["job", "slot"] = Field(
        default="job",
        description="What rusage[mem] counts for at this site. slot divides it by the cpus.",
    )


class Slurm(Cluster, frozen=True):
    """How the Slurm of this site is called."""

    partition: Text = Field(
        default="", description="Slurm partition, for all stages. Default: that of the site."
    )
    account: Text = Field(default="", description="Slurm account for the jobs (--account).")
    qos: Text = Field(default="", description="Quality of service for the jobs (--qos).")


class Docker(Section, frozen=True):
    """What containers may do. The defaults allow the least."""

    pull: Literal["missing", "always", "never"] = Field(
        default="missing", description="When images are pulled."
    )
    max_parallel: Annotated[int, Field(ge=0, le=10_000)] = Field(
        default=0,
        description="Containers of a stage at once; 0 for as many as the CPU cores allow.",
    )
    network: Name = Field(default="none", description="The network of the containers.")
    pids: Count = Field(default=1024, le=2**22, description="Most processes in one container.")
    read_only: bool = Field(
        default=True, description="Whether the image's own files are read-only."
    )
    capabilities: tuple[Name, ...] = Field(
        default=(), description="Capabilities to add. All others are dropped."
    )
    extra: Command = Field(default=(), description="Extra arguments for every docker run.")
    command_seconds: Seconds = Field(
        default=60, description="Seconds that one docker command may take."
    )
    unknown_minutes: Minutes = Field(
        default=60,
        description="Minutes without an answer from the engine after which jobs are lost.",
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
        description="Factor for the memory of a job that ran out of it. Used twice at most.",
    )
    memory_limit_mb: Annotated[int, Field(ge=0, le=2**30)] = Field(
        default=0,
        description="Most MiB that a job may get after it ran out of memory; 0 for no other limit.",
    )
    lsf: Lsf = Field(default_factory=Lsf, description="How LSF is called.")
    slurm: Slurm = Field(default_factory=Slurm, description="How Slurm is called.")
    docker: Docker = Field(default_factory=Docker, description="What containers may do.")
    shard_mb: Annotated[Number, Field(gt=0, le=2**20)] = Field(
        default=64, description="Most MiB of input for each job of the process stage."
    )
    max_shards: Count = Field(default=64, le=10_000, description="Most jobs of the process stage.")
    transform: TransformSpec = Field(
        default="transforms:transform",
        description="The function, as `module:function`, that changes each table.",
    )
    stages: Stages = Field(default_factory=Stages, description="Settings of single stages.")
