"""Published files, as attachments. No other file is ever opened."""

import os
from collections.abc import Iterator
from typing import Any, BinaryIO
from urllib.parse import quote

from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from ds_flow.core import RequestError
from ds_flow.ledger import Ledger
from ds_flow.system import open_regular
from ds_flow.web.answers import Answers
from ds_flow.work import find_manifest, manifest_name

CHUNK_BYTES = 2**17
KINDS = {".csv": "text/csv; charset=utf-8", ".parquet": "application/vnd.apache.parquet"}


def output(answers: Answers, run_id: str, name: str) -> Response:
    """One output of a run, or its manifest: only under the name that the ledger has for it.

    Raises RequestError if it has none, or if the file is gone.
    """
    folder = answers.settings.output_dir

    def is_published(ledger: Ledger) -> bool:
        return ledger.read.run(run_id) is not None and name in {
            manifest_name(run_id),
            *ledger.read.outputs(run_id),
        }

    if "/" in name or not answers.ask(is_published):
        raise RequestError(f"run {run_id} has no output {name!r}")
    is_manifest = name == manifest_name(run_id)
    path = (find_manifest(folder, run_id) if is_manifest else None) or folder / name
    try:
        descriptor = open_regular(path)
    except OSError as error:
        raise RequestError(f"{name} cannot be read: {error.strerror}") from error
    file = os.fdopen(descriptor, "rb")
    size = os.fstat(descriptor).st_size
    headers = {
        "Content-Disposition": f"attachment; filename*=UTF-8''{quote(name, safe='')}",
        "Content-Length": str(size),
    }
    kind = "application/json" if is_manifest else KINDS[path.suffix]
    return _Download(file, _chunks(file, size), media_type=kind, headers=headers)


class _Download(StreamingResponse):
    """Closes its file also if whoever asked is gone before the first byte."""

    def __init__(self, file: BinaryIO, chunks: Iterator[bytes], **more: Any) -> None:
        super().__init__(chunks, **more)
        self.file = file

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self.file:
            await super().__call__(scope, receive, send)


def _chunks(file: BinaryIO, size: int) -> Iterator[bytes]:
    """Read as many bytes as were promised."""
    while size > 0 and (chunk := file.read(min(CHUNK_BYTES, size))):
        size -= len(chunk)
        yield chunk
