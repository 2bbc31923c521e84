"""Analyses on disk: what marks a run that analyzes, and an analysis that is given up."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ds_flow.system import read_word, write_word
from ds_flow.work.directory import attempt_dir, marked_attempt

ANALYZING = "analyzing"  # in an attempt's folder: its run is in the analysis, or ended there
GIVEN_UP = "analysis_given_up"  # in a batch's folder: why no further attempt analyzes


@contextmanager
def analyzing(work: Path) -> Iterator[None]:
    """Mark this process's attempt while it analyzes. The mark stays if the run ends there."""
    attempt = marked_attempt(work)
    if attempt is None:
        yield
        return
    mark = attempt_dir(work, attempt) / ANALYZING
    mark.parent.mkdir(parents=True, exist_ok=True)
    mark.touch()
    yield
    mark.unlink()


def give_up_analysis(work: Path, attempt: int, why: str) -> bool:
    """Let later attempts publish without an analysis; False if this attempt did not end in it."""
    if not (attempt_dir(work, attempt) / ANALYZING).exists():
        return False
    write_word(work / GIVEN_UP, why)
    return True


def why_no_analysis(work: Path) -> str:
    """Say why a batch's analysis was given up; "" if it was not."""
    return read_word(work / GIVEN_UP) or ""
