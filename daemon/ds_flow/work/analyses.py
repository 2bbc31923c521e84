"""Analyses on disk: in a run, given up, or done again and published beside the first one."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

from ds_flow.core import BatchError
from ds_flow.system import read_json, read_word, sync_dir, write_word
from ds_flow.work.directory import attempt_dir, marked_attempt
from ds_flow.work.published import analysis_name, newest_analyses, put_name

ANALYZING = "analyzing"  # in an attempt's folder: its run is in the analysis, or ended there
ANALYSIS = "analysis.json"  # in a work directory: what came of an analysis that was done again
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


def read_analysis(path: Path) -> dict[str, Any]:
    """Read what came of an analysis that was done again, as a manifest has it.

    Raises BatchError if the file is nothing like it, FileNotFoundError if it is gone.
    """
    try:
        analysis = read_json(path)["analysis"]
        return {**analysis, "stdout": str(analysis["stdout"]), "error": str(analysis["error"])}
    except (TypeError, KeyError) as error:
        raise BatchError(f"{path}: not an analysis of this version: {error!r}") from error


def publish_analysis(work: Path, output_dir: Path, run_id: str) -> int:
    """Publish an analysis that was done again under the run's next number; the number.

    A call that was interrupted can be repeated: the same bytes keep their name.
    """
    for number in count(max(1, newest_analyses(output_dir).get(run_id, 0))):
        try:
            put_name(work / ANALYSIS, output_dir / analysis_name(run_id, number))
        except FileExistsError:
            continue  # an earlier one has it
        sync_dir(output_dir)
        return number
    raise AssertionError("numbers do not end")
