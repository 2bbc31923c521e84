"""What arrives: how files are watched, form batches, and leave the inbox."""

from typing import Literal

from pydantic import Field, model_validator

from ds_flow.core import LOCAL, SetRule
from ds_flow.settings.types import (
    Count,
    MarkerName,
    Minutes,
    Name,
    PathText,
    Seconds,
    Section,
    SetExpression,
    TimeOfDay,
    Zone,
)


class Watch(Section, frozen=True):
    """How new files are noticed."""

    observer: Literal["auto", "inotify", "poll"] = Field(
        default="auto",
        description="What wakes the daemon. auto polls where the file system has no events.",
    )
    quiet_seconds: Seconds = Field(
        default=0.5, description="Seconds that a file must stay unchanged before it is read."
    )
    rescan_seconds: Seconds = Field(
        default=60, description="Seconds between two scans when no event comes."
    )
    poll_seconds: Seconds = Field(
        default=5, description="Seconds between two scans where the file system has no events."
    )
    max_mb: Count = Field(
        default=2**20,
        le=2**43,
        description="MiB of the largest file that is read. A larger one is quarantined.",
    )
    marker: MarkerName = Field(
        default="",
        description="The name of the file that says that a file is complete: `{name}.done`,"
        " `{stem}.ok`, or `_SUCCESS` for a whole folder. Default: none.",
    )
    marker_minutes: Minutes = Field(
        default=60,
        description="Minutes after which a file without a marker, or a marker without a file, is"
        " told.",
    )


class FileSet(Section, frozen=True):
    """Files that belong together, and make one batch once all of them have come."""

    by: SetExpression = Field(
        description="A regular expression (RE2) that the name of such a file begins with."
    )
    key: Name = Field(description="The group of `by` by which the files of a set are alike.")
    expect: Count = Field(le=1_000_000, description="The number of files in a set.")
    at_latest: TimeOfDay | None = Field(
        default=None,
        description="The time of day, HH:MM, at which a set forms with what has come. Default:"
        " none, so it waits until it is complete.",
    )
    timezone: Zone = Field(
        default=LOCAL, description="`local`, or a time zone such as Europe/Berlin."
    )
    late: Literal["alone", "again"] = Field(
        default="alone",
        description="What a file does that comes after its set was formed: a batch of its own, or"
        " the whole set again.",
    )

    @model_validator(mode="after")
    def _has_group(self) -> "FileSet":
        if self.key not in SetRule(by=self.by, key=self.key, expect=self.expect).groups:
            raise ValueError(f"by has no group {self.key!r}, such as (?P<{self.key}>...)")
        return self


class InboxRules(Section, frozen=True):
    """What ds-flow does in the inbox, and what becomes of inputs once their run is over."""

    receipts: bool = Field(
        default=False,
        description="Whether each file has a receipt, `receipts/<name>.json` in the inbox, which"
        " says what became of it.",
    )
    after: Literal["keep", "archive", "delete"] = Field(
        default="keep",
        description="What is done with a published input: nothing, or it is moved to `archive_dir`,"
        " or removed. Only while its bytes are those that were published.",
    )
    archive_dir: PathText = Field(
        default="archive",
        description="Folder for published inputs, in a folder for each run. Not in the inbox.",
    )
    rejected: Literal["keep", "move"] = Field(
        default="keep",
        description="What is done with a rejected input: nothing, or it is moved to `rejected_dir`,"
        " with the reason beside it.",
    )
    rejected_dir: PathText = Field(
        default="rejected", description="Folder for rejected inputs. Not in the inbox."
    )


class Batching(Section, frozen=True):
    """When waiting files form a batch: as soon as one of these limits is reached."""

    quiet_seconds: Seconds = Field(
        default=1, description="Seconds without a new file, when none is about to settle."
    )
    max_wait_seconds: Seconds = Field(
        default=30, description="Seconds that the oldest file has waited."
    )
    max_files: Count = Field(default=20_000, le=1_000_000, description="Number of waiting files.")
    max_mb: Count = Field(default=4096, le=2**30, description="MiB of waiting files.")
    set: FileSet | None = Field(
        default=None,
        description="Which files make complete sets, and when these form. Default: none do.",
    )

    @property
    def rule(self) -> SetRule | None:
        """How sets are made; None if none are."""
        return SetRule(**self.set.model_dump()) if self.set else None
