"""`ds-flow check`: judge the settings and the machine, and print the settings in force."""

import argparse
import json
import os
from dataclasses import asdict
from importlib.resources import files
from typing import TYPE_CHECKING

from ds_flow.cli.arguments import JSON, Arguments, argument
from ds_flow.cli.schemas import NAMES, schema_of
from ds_flow.core import SettingsError
from ds_flow.system import DONE, put, put_document, put_foreign, put_lines, put_table

if TYPE_CHECKING:
    from ds_flow.doctor import Finding
    from ds_flow.settings import Settings

HELP = "check the settings and the machine; print the settings in force"
ARGUMENTS: Arguments = (
    argument(
        "--schema",
        nargs="?",
        choices=("settings", "manifest", *NAMES),
        metavar="DOCUMENT",
        const="settings",
        help="print the JSON Schema of the settings file, a manifest, or what a command prints"
        " with --json",
    ),
    JSON,
)


def run(args: argparse.Namespace) -> int:
    if args.schema:
        return _put_schema(args.schema)
    from ds_flow.cli.project import load
    from ds_flow.doctor import run_checks

    settings = load(args)
    findings = run_checks(settings, os.environ)
    if args.json:
        document = {"settings": str(settings.file), "findings": [asdict(one) for one in findings]}
        put_document(document)
    else:
        _put_findings(settings, findings)
    return SettingsError.exit_code if any(one.level == "fault" for one in findings) else DONE


def _put_findings(settings: "Settings", findings: "list[Finding]") -> None:
    from ds_flow.settings import effective

    rows = ([one.level, one.subject, one.text] for one in findings)
    put_table(("level", "subject", "finding"), rows)
    put()
    put(f"# {settings.file} with every default. Comments say where each value comes from.")
    put_lines(effective(settings).rstrip())


def _put_schema(name: str) -> int:
    if name == "manifest":
        put_foreign(json.loads(files("ds_flow.core").joinpath("manifest.schema.json").read_text()))
    elif name == "settings":
        from ds_flow.settings import settings_schema

        put_foreign(settings_schema())
    else:
        put_foreign(schema_of(name))
    return DONE
