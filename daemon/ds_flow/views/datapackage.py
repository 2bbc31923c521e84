"""What one run published, as a Data Package: https://specs.frictionlessdata.io/data-package."""

from collections.abc import Iterator
from pathlib import Path

from ds_flow.core import Document, Manifest, Output, RequestError
from ds_flow.ledger import Ledger
from ds_flow.settings import Settings
from ds_flow.work import columns_of, find_manifest, read_manifest

TYPES = {"processed_at": "datetime"}  # the cells of all other columns are text, as they came


def datapackage_document(settings: Settings, ledger: Ledger, run_id: str) -> Document:
    """Describe a run's outputs. The paths are names in the output folder: keep the document there.

    Raises RequestError if the run has no outputs, or no longer has them.
    """
    row = ledger.read.run(run_id)
    if row is None:
        raise RequestError(f"no run {run_id!r}; `ds-flow runs` lists them")
    path = find_manifest(settings.output_dir, run_id)
    if path is None:
        raise RequestError(f"run {run_id} is {row.state}: it has no manifest")
    if row.removed_at:
        raise RequestError(f"run {run_id}: `ds-flow gc` removed its outputs on {row.removed_at}")
    manifest = read_manifest(path)
    resources = list(_resources(settings.output_dir, manifest))
    if not resources:
        raise RequestError(f"run {run_id} published no file: all were rejected")
    return {
        "profile": "data-package",
        "name": f"ds-flow-{run_id}".lower(),
        "id": manifest.pathspec,
        "title": f"{manifest.project}, run {run_id}",
        "description": f"Published by ds-flow. Trigger: {manifest.trigger}.",
        "created": manifest.published_at,
        "sources": [
            {"title": f"{one.path} version {one.version}, SHA-256 {one.sha256}"}
            for one in manifest.inputs
        ],
        "resources": resources,
    }


def _resources(folder: Path, manifest: Manifest) -> Iterator[Document]:
    for number, output in enumerate(manifest.outputs, start=1):
        if output.name.endswith(".parquet"):
            continue  # the same table again, which not every tool can read
        yield {
            "profile": "tabular-data-resource",
            "name": f"processed-{number}" if output.source else "combined",
            "title": output.source or "all files together",
            **_described(folder, output),
        }


def _described(folder: Path, output: Output) -> Document:
    names = columns_of(folder / output.name)
    fields = [{"name": name, "type": TYPES.get(name, "string")} for name in names]
    return {
        "path": output.name,
        "scheme": "file",
        "format": "csv",
        "mediatype": "text/csv",
        "encoding": "utf-8",
        "bytes": output.bytes,
        "hash": f"sha256:{output.sha256}",
        "dialect": {"delimiter": ",", "doubleQuote": True, "quoteChar": '"'},
        "schema": {"fields": fields, "missingValues": [""]},
    }
