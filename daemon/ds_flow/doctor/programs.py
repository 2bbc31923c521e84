"""Check the programs that a run starts, and the code that it loads."""

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

from ds_flow.core import CHECKOUT, FLOW, PYTHON, attempt_command, program_of
from ds_flow.doctor.finding import Finding, Findings, Level
from ds_flow.settings import Settings
from ds_flow.system import mask, store_folder

LIMIT_SECONDS = 60.0
COMBINE_SCRIPT = CHECKOUT / "bash" / "combine.sh"

# Metaflow takes the first of these that is set and not "root" (metaflow/util.py, get_username).
USER_VARIABLES = ("METAFLOW_USER", "SUDO_USER", "USERNAME", "USER")

_LOAD_TRANSFORM = """
import sys
from pathlib import Path
flows, spec, root = sys.argv[1:]
sys.path.insert(0, flows)
from steps import transform
try:
    transform.load(spec, Path(root))
except transform.SettingsError as error:
    sys.exit(str(error))
print("is in", sys.modules[spec.partition(":")[0]].__file__)
"""


# --------------------------------------------------------------------------- the flow


def check_flow(settings: Settings, environ: Mapping[str, str]) -> Findings:
    """The flow must start as a run does: by bash, with Metaflow, in the environment of a run.

    It does so in the project if that has a datastore, and else in a folder of its own, so that
    nothing is left behind.
    """
    with tempfile.TemporaryDirectory() as folder:
        has_store = store_folder(settings.root).is_dir()
        file = settings.file if has_store else Path(folder, "config", settings.file.name)
        command = attempt_command(Path(folder), "check")
        why, _ = _run(command, {**environ, "DS_FLOW_CONFIG": str(file)}, settings.root)
    if why:
        yield Finding("fault", "flow", mask(why, settings.secrets))
    else:
        yield Finding("ok", "flow", f"{FLOW} starts, with Metaflow {version('metaflow')}")


def check_transform(settings: Settings, environ: Mapping[str, str]) -> Findings:
    """A job must be able to load the transform."""
    spec = settings.compute.transform
    command = [*PYTHON, "-c", _LOAD_TRANSFORM, str(FLOW.parent), spec, str(settings.root)]
    why, printed = _run(command, environ, settings.root)
    if not why and not printed.startswith("is in "):
        why = f"compute.transform {spec}: it ends the process that imports it"
    yield Finding("fault" if why else "ok", "transform", why or f"{spec} {printed}")


def _run(command: Sequence[str], environ: Mapping[str, str], cwd: Path) -> tuple[str, str]:
    """Run a program. Returns why it failed, or "", and the last line that it printed."""
    try:
        child = subprocess.Popen(
            command,
            env=environ,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="backslashreplace",
            process_group=0,
        )
    except OSError as error:
        return str(error), ""
    try:
        printed, said = child.communicate(timeout=LIMIT_SECONDS)
    except BaseException as error:  # also if a person or the system ends the check
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)  # what it started, too: that holds its output open
        child.communicate()
        if not isinstance(error, subprocess.TimeoutExpired):
            raise
        return f"no answer in {LIMIT_SECONDS:g} s", ""
    last = next(filter(str.strip, reversed(said.split("\n"))), "no message").strip()
    why = f"exit code {child.returncode}: {last}" if child.returncode else ""
    return why, "".join(printed.splitlines()[-1:])


def check_user(_settings: Settings, environ: Mapping[str, str]) -> Findings:
    """Say under which name Metaflow records the runs."""
    values = (environ.get(name, "") for name in USER_VARIABLES)
    user = next((name for name in values if name not in {"", "root"}), None)
    yield Finding("ok", "Metaflow user", user or "not in the environment; the flow sets its own")


# --------------------------------------------------------------------------- programs on PATH


def check_bash(_settings: Settings, environ: Mapping[str, str]) -> Findings:
    """The combine stage needs bash and its script."""
    bash = _find("bash", environ)
    if bash is None:
        yield Finding("fault", "bash", "not on PATH")
    elif not COMBINE_SCRIPT.is_file():
        yield Finding("fault", "bash", f"{COMBINE_SCRIPT} does not exist")
    else:
        yield Finding("ok", "bash", f"{bash} runs {COMBINE_SCRIPT}")


def check_analyze(settings: Settings, environ: Mapping[str, str]) -> Findings:
    """A local analysis must be found: on PATH, or from the project's folder. Name its Python."""
    stage = settings.stages["analyze"]
    command = program_of(stage.command, stage.executor)
    if command and command[0] != stage.command[0]:
        yield Finding("ok", "analyze", f"runs {command[0]}, this environment's Python")
    elif stage.executor == "local":
        if command and "/" in command[0]:
            command = (str(settings.root / command[0]), *command[1:])
        yield from _command("analyze", command, environ, if_missing="fault")
    if stage.executor != "docker" and command[1:2] and command[1].endswith(".py"):
        script = settings.root / command[1]
        if not script.is_file():
            yield Finding("fault", "analyze", f"{script} does not exist")


def check_alerts(settings: Settings, environ: Mapping[str, str]) -> Findings:
    """The alert command should be on PATH."""
    yield from _command("alerts", settings.alerts.command, environ, if_missing="warning")


def _command(
    subject: str, command: Sequence[str], environ: Mapping[str, str], *, if_missing: Level
) -> Findings:
    if command:
        found = _find(command[0], environ)
        yield Finding(
            "ok" if found else if_missing,
            subject,
            f"runs {found}" if found else _why_missing(command[0]),
        )


def _why_missing(program: str) -> str:
    if "/" not in program:
        return f"no program {program!r} on PATH"
    return f"{program} {'is not executable' if Path(program).exists() else 'does not exist'}"


def _find(program: str, environ: Mapping[str, str]) -> str | None:
    return shutil.which(program, path=environ.get("PATH", os.defpath))
