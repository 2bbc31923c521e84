"""`--project NAME`: an installed service's own command carries out what was asked for."""

import os
from collections.abc import Sequence

from ds_flow.cli.arguments import UsageError
from ds_flow.core import RequestError
from ds_flow.system import Service, installed_services

OPTION = "--project"


def go_to_service(argv: Sequence[str]) -> None:
    """Become the command of the service that `argv` names; return if it names none.

    Its version may be another one than this one's: another version could migrate its ledger, or run
    other transforms. So nothing else of `argv` is read here.
    """
    names, rest = _taken_apart(argv)
    if not names:
        return
    is_told = any(word == "--config" or word.startswith("--config=") for word in rest)
    if len(names) > 1 or is_told:
        raise UsageError("name one project: either --project NAME, once, or --config FILE")
    service = _find(names[0])
    command = str(service.command)
    os.execv(command, [command, "--config", str(service.settings), *rest])  # noqa: S606 - root has installed it


def _taken_apart(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """The names that follow --project, and everything else."""
    names: list[str] = []
    rest: list[str] = []
    words = iter(argv)
    for word in words:
        if word == "--":
            return names, [*rest, word, *words]
        if word.startswith(f"{OPTION}="):
            names.append(word.partition("=")[2])
        elif word == OPTION:
            name = next(words, None)
            if name is None:
                raise UsageError(
                    f"{OPTION}: name an installed service: ds-flow services lists them"
                )
            names.append(name)
        else:
            rest.append(word)
    return names, rest


def _find(name: str) -> Service:
    services = installed_services()
    for one in services:
        if name in {one.name, one.unit}:
            return one
    known = ", ".join(f"{one.name} ({one.root})" for one in services) or "none"
    raise RequestError(f"no service {name!r} is installed on this host; installed: {known}")
