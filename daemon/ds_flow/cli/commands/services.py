"""`ds-flow services`: list what `make install` has installed on this host."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from ds_flow.cli.arguments import JSON, Arguments
from ds_flow.core import Document, DsFlowError
from ds_flow.system import DONE, Service, installed_services, put_document, put_table

HELP = "list the services that are installed on this host"
ARGUMENTS: Arguments = (JSON,)
HEADINGS = ("name", "unit", "root", "user", "version", "state", "page")
LIMIT_SECONDS = 10  # for systemd's answer
UNKNOWN = "unknown"


def run(args: argparse.Namespace) -> int:
    services = installed_services()
    states = _states([name for one in services for name in (one.unit, f"{one.unit}-web")])
    found = [_document(one, states) for one in services]
    if args.json:
        put_document({"services": found})
    else:
        put_table(HEADINGS, ([one[name] for name in HEADINGS] for one in found))
    return DONE


def _document(one: Service, states: dict[str, str]) -> Document:
    return {
        "name": one.name,
        "unit": one.unit,
        "root": str(one.root),
        "user": one.user,
        "version": one.version(),
        "state": states.get(one.unit, UNKNOWN),
        "page": states.get(f"{one.unit}-web", UNKNOWN),
    }


def _states(units: Sequence[str]) -> dict[str, str]:
    """What systemd says of each unit; nothing where there is none, or it does not answer."""
    from ds_flow.dispatch import call

    words = ("systemctl", "show", "--property=ActiveState", "--value", "--")
    try:
        said = call([*words, *units], LIMIT_SECONDS, cwd=Path("/")).out.split()
    except DsFlowError:
        return {}
    return dict(zip(units, said, strict=True)) if len(said) == len(units) else {}
