"""What the families of a batch's files had before it: the daemon puts it down for the run."""

import json
from collections.abc import Mapping
from contextlib import suppress

from ds_flow.core import Family, LedgerError
from ds_flow.system import read_json, write_bytes
from ds_flow.work.batch import Batch

FILE = "families.json"
LIMIT_BYTES = 8 * 2**20  # families that do not fit in are not compared


def put_families(batch: Batch, families: Mapping[str, Family]) -> None:
    """Write down what families had. What is there already stays, for all attempts of the batch."""
    path = batch.folder / FILE
    rows: dict[str, object] = {}
    left = LIMIT_BYTES
    for name, family in families.items():
        row = family.to_json()
        left -= len(json.dumps(row)) + len(name)
        if left < 0:
            break
        rows[name] = row
    if rows and not path.exists():
        write_bytes(path, json.dumps(rows).encode(), is_durable=False)


def read_families(batch: Batch) -> dict[str, Family]:
    """What families had. None if that was not written, as for a run by hand, or is torn."""
    with suppress(FileNotFoundError, LedgerError, TypeError, ValueError, LookupError):
        rows = dict(read_json(batch.folder / FILE))
        return {name: Family.from_json(row) for name, row in rows.items()}
    return {}
