"""`ds-flow manifest`: what the runs published."""

import argparse
import csv
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from ds_flow.cli.arguments import JSON, Arguments, UsageError, argument, flag
from ds_flow.core import Document, DsFlowError, RequestError
from ds_flow.system import (
    DONE,
    FAILED,
    Cell,
    Moment,
    put_foreign,
    put_long_document,
    put_table,
    say,
)

if TYPE_CHECKING:
    from ds_flow.ledger import Ledger
    from ds_flow.settings import Settings

HELP = "list what runs published"
ARGUMENTS: Arguments = (
    argument("--run", dest="run_id", metavar="RUN_ID", help="only this run"),
    JSON,
    flag("--csv", help="print one CSV line for each output"),
    argument(
        "--datapackage",
        metavar="RUN_ID",
        help="print a Frictionless Data Package of one run's outputs, to be kept beside them",
    ),
)

HEADINGS = ("run_id", "published_at", "trigger", "inputs", "rows", "outputs", "rejected")
CSV_COLUMNS = ("run_id", "published_at", "output", "source", "version", "rows", "bytes", "sha256")


def run(args: argparse.Namespace) -> int:
    from ds_flow.cli.project import reading

    if args.json and args.csv:
        raise UsageError("manifest: --json or --csv, not both")
    if args.datapackage:
        return _put_datapackage(args)
    faults: list[str] = []
    with reading(args) as (settings, ledger):
        if args.run_id and ledger.read.run(args.run_id) is None:
            raise RequestError(f"no run {args.run_id!r}; `ds-flow runs` lists them")
        faults += (
            f"run {run}: its manifest is gone" for run in missing_manifests(settings, ledger)
        )
        documents = manifests(settings, args.run_id, faults.append)
        if args.json:
            put_long_document("manifests", documents)
        elif args.csv:
            _put_csv(documents)
        else:
            put_table(HEADINGS, map(_row, documents))
    for fault in faults:
        say(fault)
    return FAILED if faults else DONE


def _put_datapackage(args: argparse.Namespace) -> int:
    from ds_flow.cli.project import reading
    from ds_flow.views import datapackage_document

    if args.csv or args.run_id:
        raise UsageError("manifest: --datapackage RUN_ID goes with neither --csv nor --run")
    with reading(args) as (settings, ledger):
        put_foreign(datapackage_document(settings, ledger, args.datapackage))
    return DONE


def manifests(
    settings: "Settings", run_id: str | None, complain: Callable[[str], None]
) -> Iterator[Document]:
    """Every published manifest, or only one run's; oldest first.

    Files that are not valid manifests go to `complain`. To get the manifest of removed outputs,
    name its run.
    """
    from ds_flow.work import find_manifest, published_manifests, read_manifest

    folder = settings.output_dir
    one = find_manifest(folder, run_id) if run_id else None
    for path in published_manifests(folder) if run_id is None else ([one] if one else []):
        try:
            yield read_manifest(path).to_json()
        except (DsFlowError, OSError) as error:
            complain(str(error))


def missing_manifests(settings: "Settings", ledger: "Ledger") -> list[str]:
    """List the published runs that have no manifest file."""
    from ds_flow.work import manifest_name, published_manifests, removed_manifests

    folder = settings.output_dir
    names = {path.name for path in (*published_manifests(folder), *removed_manifests(folder))}
    return sorted(run for run in ledger.read.run_ids() if manifest_name(run) not in names)


def _row(manifest: Document) -> list[Cell]:
    return [
        manifest["run_id"],
        Moment(manifest["published_at"]),
        manifest["trigger"],
        len(manifest["inputs"]),
        sum(item["rows"] for item in manifest["inputs"]),
        len(manifest["outputs"]),
        len(manifest["rejected"]),
    ]


def _put_csv(manifests: Iterable[Document]) -> None:
    """One line for each output. The columns never change; the combined file has no source."""
    table = csv.writer(sys.stdout, lineterminator="\n")
    table.writerow(CSV_COLUMNS)
    for one in manifests:
        versions = {item["path"]: item["version"] for item in one["inputs"]}
        for out in one["outputs"]:
            named = [out["name"], out["source"], versions.get(out["source"])]
            sizes = [out["rows"], out["bytes"], out["sha256"]]
            table.writerow([one["run_id"], one["published_at"], *named, *sizes])
