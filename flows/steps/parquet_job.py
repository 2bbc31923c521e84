"""Write one of our own files as Parquet: `parquet_job.py SOURCE TARGET`.

All columns are text. The target is written whole, durably. This may run again, or twice at once.
"""

import secrets
import sys
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__":  # run as a file: its packages are beside steps/
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import pyarrow as pa
import pyarrow.parquet as pq

from csv_io.table import read_tables
from csv_io.writing import own_records
from ds_flow.system import sync_dir, sync_files
from steps import job_exit

BATCH_CELLS = 2**22  # of a row group, so that few of them are in memory at once
LEAST_ROWS = 1024


def main(argv: Sequence[str]) -> int:
    """Write the file. An exit code tells of our own disk."""
    source, target = map(Path, argv)
    try:
        write_parquet(source, target)
    except OSError as error:
        print(f"parquet: {error}", file=sys.stderr)
        return job_exit.of(error)
    return 0


def write_parquet(source: Path, target: Path) -> None:
    """Write a file anew. What a killed process left under its name is replaced."""
    part = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    try:
        _write(source, part)
        sync_files([part])
        part.replace(target)
    except OSError:
        part.unlink(missing_ok=True)  # a full disk gets its room back
        raise
    sync_dir(target.parent)


def _write(source: Path, target: Path) -> None:
    with source.open("rb", buffering=0) as old, target.open("xb") as new:
        records = own_records(old)
        schema = pa.schema([(name, pa.string()) for name in records.header])
        rows = max(LEAST_ROWS, BATCH_CELLS // len(schema))
        # Without Arrow's own schema, every reader sees plain text.
        with pq.ParquetWriter(new, schema, store_schema=False) as writer:
            for table in read_tables(records):
                writer.write_table(table.cast(schema), row_group_size=rows)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
