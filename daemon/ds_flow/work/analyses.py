"""Analyses on disk: in a run, given up, or done again and published beside the first one."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

from ds_flow.core import BatchError
from ds_flow.system import read_json, read_word, sync_dir, write_word
from ds_flow.work.batch import Batch
from ds_flow.work.published import analysis_name, newest_analyses, put_name

ANALYZING = "analyzing"  # in an attempt's folder: its run is in the analysis, or ended there
GIVEN_UP = "analysis_given_up"  # in a batch's folder: why no further attempt analyzes


@contextmanager
def analyzing(batch: Batch) -> Iterator[None]:
    """Mark this process's attempt while it analyzes. The mark stays if the run ends there."""
    attempt = batch.marked_attempt()
    if attempt is None:
        yield
        return
    mark = batch.attempt_dir(attempt) / ANALYZING
    mark.parent.mkdir(parents=True, exist_ok=True)
    mark.touch()
    yield
    mark.unlink()


def give_up_analysis(batch: Batch, attempt: int, why: str) -> bool:
    """Let later attempts publish without an analysis; False if this attempt did not end in it."""
    if not (batch.attempt_dir(attempt) / ANALYZING).exists():
        return False
    write_word(batch.folder / GIVEN_UP, why)
    return True


def why_no_analysis(batch: Batch) -> str:
    """Say why a batch's analysis was given up; "" if it was not."""
    return read_word(batch.folder / GIVEN_UP) or ""


def read_analysis(path: Path) -> dict[str, Any]:
    """Read what came of an analysis that was done again, as a manifest has it.

    Raises BatchError if the file is nothing like it, FileNotFoundError if it is gone.
    """
    try:
        analysis = read_json(path)["analysis"]
        return {**analysis, "stdout": str(analysis["stdout"]), "error": str(analysis["error"])}
    except (TypeError, KeyError) as error:
        raise BatchError(f"{path}: not an analysis of this version: {error!r}") from error


def publish_analysis(batch: Batch, run_id: str) -> int:
    """Publish an analysis that was done again under the run's next number; the number.

    A call that was interrupted can be repeated: the same bytes keep their name.
    """
    output_dir = batch.output_dir
    for number in count(max(1, newest_analyses(output_dir).get(run_id, 0))):
        try:
            put_name(batch.analysis, output_dir / analysis_name(run_id, number))
        except FileExistsError:
            continue  # an earlier one has it
        sync_dir(output_dir)
        return number
    raise AssertionError("numbers do not end")
