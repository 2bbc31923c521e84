"""`ds-flow init`: make a new project."""

import argparse
import json
import os
import re
import shlex
import shutil
import sys
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path

from ds_flow.cli.arguments import JSON, Arguments, argument
from ds_flow.core import RequestError, root_problem
from ds_flow.system import DONE, put, put_document

HELP = "make a new project: settings, folders and a transform"
ARGUMENTS: Arguments = (
    argument("folder", metavar="DIR", help="a new folder, or an empty one"),
    JSON,
)

SETTINGS = "config/settings.yaml"
TEMPLATES: Mapping[str, str] = {
    ".gitignore": "gitignore",
    ".env.example": "env.example",
    "flows/transforms.py": "transforms.py.txt",
    SETTINGS: "settings.yaml",  # the last one: with it, the project is there
}
FOLDERS = ("data", "out", "log")
STORE = ".metaflow"  # a service may write there, and make nothing beside it
KEPT = ".gitkeep"
NAME_LENGTH = 64

NEXT = """
next, with your own files:

    export DS_FLOW_CONFIG={settings}
    cp student_*.csv {folder}/data/
    {program} once           # processes what is there, into {folder}/out/
    {program} try FILE       # shows what your transform makes of a file
    {program} serve          # the daemon

yours to change: {settings}, {folder}/flows/transforms.py"""


def run(args: argparse.Namespace) -> int:
    folder = Path(os.path.normpath(Path.cwd() / args.folder))
    made = make_project(folder)
    if args.json:
        put_document({"folder": str(folder), "settings": str(folder / SETTINGS), "made": made})
        return DONE
    put(f"made a project in {folder}:")
    for name in made:
        put(f"  {name}")
    told = NEXT.format(
        program=_program(),
        settings=shlex.quote(str(folder / SETTINGS)),
        folder=shlex.quote(str(folder)),
    )
    for line in told.split("\n"):
        put(line)
    return DONE


def _program() -> str:
    """How a person types this command: by its path, unless a shell finds this very one."""
    own = Path(sys.argv[0]).absolute()
    found = shutil.which(own.name)
    return own.name if found and Path(found) == own else shlex.quote(str(own))


def make_project(folder: Path) -> list[str]:
    """Make the files and folders of a project, and name them.

    Raises RequestError if something is there already. Nothing is ever written over.
    """
    if problem := root_problem(str(folder.resolve())):
        raise RequestError(problem)
    if folder.is_dir() and any(folder.iterdir()):
        raise RequestError(f"{folder} is not empty; name a new folder, or an empty one")
    if folder.exists() and not folder.is_dir():
        raise RequestError(f"{folder} is no folder; name a new one")
    for name in (*FOLDERS, STORE, "config", "flows"):
        (folder / name).mkdir(parents=True)
    texts = {f"{name}/{KEPT}": "" for name in FOLDERS}
    source = files("ds_flow.cli").joinpath("project_template")
    texts |= {name: source.joinpath(own).read_text("utf-8") for name, own in TEMPLATES.items()}
    texts[SETTINGS] = texts[SETTINGS].replace("@PROJECT@", json.dumps(_project_name(folder)))
    for name, text in texts.items():
        with (folder / name).open("x", encoding="utf-8") as file:
            file.write(text)
    return [*(f"{name}/" for name in FOLDERS), *TEMPLATES]


def _project_name(folder: Path) -> str:
    """Name a project after its folder, in characters that a name may have."""
    name = re.sub(r"[^A-Za-z0-9_.-]+", "_", folder.resolve().name).strip("_.-")
    return name[:NAME_LENGTH] or "project"
