"""Rewrite processed files to a batch's columns: `align_job.py FOLDER`, their paths on stdin.

FOLDER/columns.json holds the columns. Each file is written to FOLDER under its own name, whole.
This may run again, or twice at once.
"""

import json
import os
import secrets
import sys
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__":  # run as a file: its packages are beside steps/
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from csv_io.writing import Alignment
from ds_flow.system import sync_dir, sync_files
from steps import job_exit


def main(argv: Sequence[str]) -> int:
    """Rewrite every named file, durably: this job's outcome may survive a power loss, too."""
    try:
        align_files(Path(argv[0]), sys.stdin.buffer.read())
    except OSError as error:
        print(f"align: {error}", file=sys.stderr)
        return job_exit.of(error)
    return 0


def align_files(folder: Path, names: bytes) -> None:
    """Rewrite files to FOLDER. Their paths end with a NUL byte each."""
    alignment = Alignment(json.loads((folder / "columns.json").read_bytes()))
    paths = [Path(os.fsdecode(name)) for name in names.split(b"\0")[:-1]]
    made = [rewrite(path, folder, alignment) for path in paths]
    sync_files(made)
    sync_dir(folder)


def rewrite(source: Path, folder: Path, alignment: Alignment) -> Path:
    """Rewrite one file. A file that a killed process left under its name is replaced."""
    part = folder / f".{source.name}.{secrets.token_hex(4)}"
    alignment.write(source, part)
    return part.replace(folder / source.name)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
