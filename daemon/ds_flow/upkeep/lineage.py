"""OpenLineage events: what the ledger knows of a run's beginning or end, as others read it.

They are written to the published schema without the official client: docs/decisions says why.
"""

import os
import uuid
from contextlib import suppress
from importlib.metadata import version
from typing import Any

from ds_flow.core import Document, Manifest, Output
from ds_flow.ledger import Ledger, RunEvent
from ds_flow.settings import Settings
from ds_flow.system import FLOW_NAME, mask
from ds_flow.work import columns_of, manifest_of

SPEC = "https://openlineage.io/spec"
TYPES = {
    "run.running": "START",
    "run.succeeded": "COMPLETE",
    "run.failed": "FAIL",
    "run.timed_out": "FAIL",
    "run.lost": "FAIL",
    "run.stopped": "ABORT",
    "run.cancelled": "ABORT",
}
PRODUCER = f"urn:ds-flow:{version('ds-flow')}"


def lineage_event(settings: Settings, ledger: Ledger, told: RunEvent) -> Document:
    """Write one event. The same row of the ledger always gives the same run, type and time."""
    kind = TYPES[told.kind]
    inputs, outputs = [], []
    if kind == "START":
        inputs = [
            _dataset(settings, file.path, str(file.sha256))
            for file in ledger.read.planned(told.batch)
        ]
    elif manifest := manifest_of(settings.output_dir, told.run_id) if kind == "COMPLETE" else None:
        inputs = _inputs(settings, manifest)
        outputs = [_output(settings, one) for one in manifest.outputs]
    return {
        "eventType": kind,
        "eventTime": told.at,
        "producer": PRODUCER,
        "schemaURL": f"{SPEC}/2-0-2/OpenLineage.json#/$defs/RunEvent",
        "run": {"runId": _id(f"{FLOW_NAME}/{told.run_id}"), "facets": _run_facets(settings, told)},
        "job": {
            "namespace": settings.project_name,
            "name": FLOW_NAME,
            "facets": {
                "jobType": _facet(
                    "2-0-4/JobTypeJobFacet",
                    processingType="BATCH",
                    integration="DS_FLOW",
                    jobType="RUN",
                )
            },
        },
        "inputs": inputs,
        "outputs": outputs,
    }


def _id(name: str) -> str:
    """A run's id in lineage follows from its pathspec, so whoever knows that can find it."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, name))


def _facet(schema: str, **values: Any) -> Document:
    name = schema.partition("/")[2]
    url = f"{SPEC}/facets/{schema}.json#/$defs/{name}"
    return {"_producer": PRODUCER, "_schemaURL": url, **values}


def _run_facets(settings: Settings, told: RunEvent) -> Document:
    facets = {
        "nominalTime": _facet(
            "1-0-1/NominalTimeRunFacet", nominalStartTime=told.due_at or told.formed_at
        ),
        "parent": _facet(
            "1-2-0/ParentRunFacet",
            run={"runId": _id(f"batch/{told.batch}")},
            job={"namespace": settings.project_name, "name": "batch"},
        ),
        "processing_engine": _facet(
            "1-1-1/ProcessingEngineRunFacet",
            version=version("metaflow"),
            name="metaflow",
            openlineageAdapterVersion=version("ds-flow"),
        ),
        "dsflow_run": {
            "_producer": PRODUCER,
            "_schemaURL": f"{SPEC}/2-0-2/OpenLineage.json#/$defs/RunFacet",
            "runId": told.run_id,
            "batch": told.batch,
            "attempt": told.attempt,
            "trigger": told.trigger,
        },
    }
    if TYPES[told.kind] in {"FAIL", "ABORT"}:
        state = told.kind.removeprefix("run.")
        message = mask(told.error, settings.secrets) or state
        facets["errorMessage"] = _facet(
            "1-0-1/ErrorMessageRunFacet", message=message, programmingLanguage="Python"
        )
    return facets


# --------------------------------------------------------------------------- datasets


def _inputs(settings: Settings, manifest: Manifest) -> list[Document]:
    return [
        {
            **_dataset(settings, one.path, one.sha256),
            "inputFacets": {
                "inputStatistics": _facet(
                    "1-0-0/InputStatisticsInputDatasetFacet",
                    rowCount=one.rows,
                    size=one.bytes,
                    fileCount=1,
                )
            },
        }
        for one in manifest.inputs
    ]


def _output(settings: Settings, output: Output) -> Document:
    path = settings.output_dir / output.name
    dataset = _dataset(settings, str(path), output.sha256)
    with suppress(OSError, ValueError):  # removed since: then nothing knows its columns
        fields = [{"name": name, "type": "string"} for name in columns_of(path)]
        dataset["facets"]["schema"] = _facet("1-2-0/SchemaDatasetFacet", fields=fields)
    dataset["outputFacets"] = {
        "outputStatistics": _facet(
            "1-0-2/OutputStatisticsOutputDatasetFacet",
            rowCount=output.rows,
            size=output.bytes,
            fileCount=1,
        )
    }
    return dataset


def _dataset(settings: Settings, path: str, sha256: str) -> Document:
    """A file by its absolute path, with its content as the version."""
    return {
        "namespace": "file",
        "name": os.path.join(settings.root, path),
        "facets": {"version": _facet("1-0-1/DatasetVersionDatasetFacet", datasetVersion=sha256)},
    }
