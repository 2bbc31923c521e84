"""Some durable steps of the whole line, died at; `make crash` dies at every one of them."""

from pathlib import Path

import pytest

from chaos.crashpoints import Point, survives

POINTS = [
    # one of two files has been rewritten to the union of columns
    Point("align_job.py rename /out/.work/BATCH/aligned/CODE/student_b.TOKEN.csv #1", "one"),
    # the combined file is whole as CSV, and not yet as Parquet
    Point("parquet_job.py rename /out/.work/BATCH/combined/CODE.parquet #1", "all"),
    # the run's row is in the ledger, its process is not there yet
    Point("daemon after commit #4", "all"),
    # the commit is there, its manifest is not; the next start dies while it records
    Point("end link /out/manifest_RUN.json #1", "twice", second=8),
    # the publication is recorded, and nothing was handed over yet; the same in the ledger's commit
    Point("daemon after commit #6", "all"),
    Point("daemon before commit #6", "one"),
    # the command has taken the run, and the ledger does not know it
    Point("daemon before commit #7", "all"),
]


@pytest.mark.parametrize("point", POINTS, ids=str)
@pytest.mark.exhaustive
def test_a_death_at_a_durable_step_loses_and_doubles_nothing(point: Point, tmp_path: Path) -> None:
    assert survives(point, tmp_path) == []
