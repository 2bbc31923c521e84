"""Whether what a run published still is what its manifest says."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from ds_flow.core import LedgerError, Output
from ds_flow.ledger import Reading
from ds_flow.system import open_regular
from ds_flow.work import manifest_name, read_manifest

PIECE_BYTES = 8 * 2**20


def verify_outputs(output_dir: Path, read: Reading, run_id: str) -> Iterator[str]:
    """Give a sentence for everything that is off, and "" after each piece that was read.

    So whoever asks can do other things in between.
    """
    path = output_dir / manifest_name(run_id)
    try:
        manifest = read_manifest(path)
    except (LedgerError, OSError) as error:
        yield f"{path.name}: {_said(error)}"
        return
    if {output.name: output.sha256 for output in manifest.outputs} != read.hashes(run_id):
        yield f"{path.name}: does not name what the ledger knows of this run"
    for output in manifest.outputs:
        try:
            yield from _verify(output_dir / output.name, output)
        except OSError as error:
            yield f"{output.name}: {_said(error)}"


def _verify(path: Path, output: Output) -> Iterator[str]:
    with os.fdopen(open_regular(path), "rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        if size != output.bytes:
            yield f"{output.name}: has {size} bytes, not the {output.bytes} that were published"
            return
        digest = hashlib.sha256()
        while piece := file.read(PIECE_BYTES):
            digest.update(piece)
            yield ""
    if digest.hexdigest() != output.sha256:
        yield f"{output.name}: has other content than was published"


def _said(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "is gone"
    reason = error.strerror if isinstance(error, OSError) else error
    return f"cannot be read: {reason}"
