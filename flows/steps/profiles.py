"""The profile of a run: what its inputs and its combined file look like, in one bounded file."""

import csv
import io
import json
import os
from collections.abc import Sequence
from pathlib import Path

from ds_flow.system import open_regular, write_bytes
from ds_flow.work import Batch, Result
from steps.column_profile import COLUMNS, Profile, checked, describe
from steps.file_results import union
from steps.profile import FILES, ROWS

LIMIT_BYTES = 2 * 2**20  # of the whole profile; inputs that do not fit in are counted
OUTPUTS_READ = 40  # outputs whose heads stand for the combined file, spread over it evenly
HEAD_BYTES = 2**16  # that are read of each


def put_profile(batch: Batch, run_id: str, good: Sequence[Result]) -> Path | None:
    """Write the profile of a run; its file, or None if the settings want none."""
    if not batch.plan.options.profile or not good:
        return None
    record = {
        "schema": 1,
        "run_id": run_id,
        "combined": describe_combined(batch, good),
        "inputs": [],
        "left_out": 0,
    }
    left = LIMIT_BYTES - len(json.dumps(record))
    inputs = []
    for one in good[:FILES]:
        profile = checked(one.profile, batch.plan.options.hide_columns)
        if profile is None:
            continue
        row = {"path": one.path, "version": one.version, **profile}
        left -= len(json.dumps(row)) + 2
        if left < 0:
            break
        inputs.append(row)
    record |= {"inputs": inputs, "left_out": len(good) - len(inputs)}
    path = batch.folder / f"profile_{run_id}.json"
    write_bytes(path, json.dumps(record).encode(), is_durable=False)  # synced when it is published
    return path


def describe_combined(batch: Batch, good: Sequence[Result]) -> Profile:
    """Describe the combined file by the first rows of some of the files that it is made of."""
    names = union([one.columns for one in good])[:COLUMNS]
    step = max(1, -(-len(good) // OUTPUTS_READ))
    some = good[::step]
    cells: list[list[str]] = [[] for _ in names]
    for one in some:
        rows = _head(batch.results.folder / one.output, max(1, ROWS // len(some)))
        places = {name: place for place, name in enumerate(one.columns)}
        for column, name in zip(cells, names, strict=True):
            place = places.get(name, len(one.columns))
            column.extend(row[place] if place < len(row) else "" for row in rows)
    return describe(
        union([one.columns for one in good]),
        cells,
        rows=sum(one.rows for one in good),
        empty=None,
        hidden=batch.plan.options.hide_columns,
    )


def _head(output: Path, rows: int) -> list[list[str]]:
    """The first whole rows of one of our own files, without its header."""
    with os.fdopen(open_regular(output), "rb") as file:
        text = file.read(HEAD_BYTES + 1)
    is_cut = len(text) > HEAD_BYTES
    lines = io.StringIO(text.decode(errors="replace"), newline="")
    try:
        found = list(csv.reader(lines))
    except csv.Error:
        return []
    found = found[:-1] if is_cut else found  # the last one may not be whole
    width = len(found[0]) if found else 0
    return [row for row in found[1 : rows + 1] if len(row) == width]
