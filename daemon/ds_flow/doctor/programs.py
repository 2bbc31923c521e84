"""Check the programs that a run starts, and the code that it loads."""

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from ds_flow.core import CHECKOUT, PYTHON, program_of
from ds_flow.doctor.finding import Finding, Findings, Level
from ds_flow.settings import Settings

IMPORT_LIMIT_SECONDS = 60
FLOW_FILE = CHECKOUT / "flows" / "student_flow.py"
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
print(sys.modules[spec.partition(":")[0]].__file__)
"""


# --------------------------------------------------------------------------- the flow


def check_flow(_settings: Settings, _environ: Mapping[str, str]) -> Findings:
    """The flow file must compile."""
    yield compiles(FLOW_FILE)


def compiles(file: Path) -> Finding:
    """Say whether a file is valid Python."""
    try:
        compile(file.read_bytes(), file, "exec")
    except OSError as error:
        return Finding("fault", "flow", f"{file} is not readable: {error.strerror}")
    except (SyntaxError, ValueError) as error:
        return Finding("fault", "flow", f"{file} is not valid Python: {error}")
    return Finding("ok", "flow", f"{file} compiles")


def check_metaflow(_settings: Settings, environ: Mapping[str, str]) -> Findings:
    """A run must be able to import Metaflow."""
    yield _in_python("Metaflow", "can be imported", environ, "import metaflow")


def check_transform(settings: Settings, environ: Mapping[str, str]) -> Findings:
    """A job must be able to load the transform."""
    spec = settings.compute.transform
    args = str(FLOW_FILE.parent), spec, str(settings.root)
    yield _in_python("transform", f"{spec} is in", environ, _LOAD_TRANSFORM, *args)


def _in_python(subject: str, good: str, environ: Mapping[str, str], *code: str) -> Finding:
    """Run code in its own interpreter, as a run does. Its last line is added to `good`."""
    try:
        done = subprocess.run(  # the exit code is the answer
            [*PYTHON, "-c", *code],
            env=environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="backslashreplace",
            timeout=IMPORT_LIMIT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Finding("fault", subject, f"no answer in {IMPORT_LIMIT_SECONDS} s")
    if done.returncode == 0:
        return Finding("ok", subject, " ".join([good, *done.stdout.splitlines()[-1:]]))
    last = next(filter(str.strip, reversed(done.stderr.split("\n"))), "no message")
    return Finding("fault", subject, f"exit code {done.returncode}: {last}")


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
    """A local analysis must be on PATH; a relative path starts at the project. Name its Python."""
    stage = settings.stages["analyze"]
    command = program_of(stage.command, stage.executor)
    if command and command[0] != stage.command[0]:
        yield Finding("ok", "analyze", f"runs {command[0]}, this environment's Python")
    elif stage.executor == "local":
        if command and "/" in command[0]:
            command = (str(settings.root / command[0]), *command[1:])
        yield from _command("analyze", command, environ, if_missing="fault")


def check_alerts(settings: Settings, environ: Mapping[str, str]) -> Findings:
    """The alert command should be on PATH."""
    yield from _command("alerts", settings.alerts.command, environ, if_missing="warning")


def _command(
    subject: str, command: Sequence[str], environ: Mapping[str, str], *, if_missing: Level
) -> Findings:
    if command:
        found = _find(command[0], environ)
        text = f"runs {found}" if found else f"no program {command[0]!r} on PATH"
        yield Finding("ok" if found else if_missing, subject, text)


def _find(program: str, environ: Mapping[str, str]) -> str | None:
    return shutil.which(program, path=environ.get("PATH", os.defpath))
