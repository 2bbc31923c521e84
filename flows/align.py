"""Rewrite processed files to a batch's union of columns: `align.py FOLDER < NUL-separated paths`.

FOLDER/columns.json holds the columns; each file is written to FOLDER under its own name.
"""

import json
import os
import sys
from pathlib import Path

from csvtable import align


def main(folder: Path, names: bytes) -> None:
    """Rewrite every named file."""
    columns = json.loads((folder / "columns.json").read_bytes())
    for name in names.split(b"\0")[:-1]:
        source = Path(os.fsdecode(name))
        align(source, folder / source.name, columns)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.stdin.buffer.read())
