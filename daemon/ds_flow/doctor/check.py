"""Whether this machine lets ds-flow do its work: one finding for each thing it stands on."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from watchdog.events import FileSystemEventHandler
from watchdog.observers.inotify import InotifyObserver

from ds_flow.core import CHECKOUT, PYTHON, DispatchError
from ds_flow.dispatch import Engine, call, unobtainable
from ds_flow.doctor import probe_job
from ds_flow.ledger import fault_of
from ds_flow.settings import Settings
from ds_flow.system import fs_type, is_network_fs, store_folder, why_store_not_held

LOW_SPACE_BYTES = 10**9
IMPORT_LIMIT_SECONDS = 60
ENGINE_LIMIT_SECONDS = 10  # a daemon that starts waits no longer for a backend
INOTIFY_LIMITS = Path("/proc/sys/fs/inotify")
FLOW_FILE = CHECKOUT / "flows" / "student_flow.py"
COMBINE_SCRIPT = CHECKOUT / "bash" / "combine.sh"

# Metaflow asks these in this order and takes no root (metaflow/util.py, get_username).
USER_VARIABLES = ("METAFLOW_USER", "SUDO_USER", "USERNAME", "USER")

_TRY_TRANSFORM = """
import sys
from pathlib import Path
flows, spec, root = sys.argv[1:]
sys.path.insert(0, flows)
from steps import process_job
try:
    process_job.load(spec, Path(root))
except process_job.SettingsError as error:
    sys.exit(str(error))
print(sys.modules[spec.partition(":")[0]].__file__)
"""


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found of one subject; a fault keeps ds-flow from its work, a warning does not."""

    level: Literal["ok", "warning", "fault"]
    subject: str
    text: str


Findings = Iterator[Finding]


def surroundings(settings: Settings, environ: Mapping[str, str]) -> list[Finding]:
    """Look at everything outside the settings; nothing is left behind and no input is touched."""
    environ = settings.run_environment(environ)
    backends = list(unreachable_backends(settings, environ))
    answering = {found.subject for found in backends if found.level == "ok"}
    return [
        *_folders(settings),
        *_inbox(settings),
        _ledger(settings),
        _events(settings),
        _free_space(settings),
        *_flow(settings, environ),
        _bash(environ),
        *_analysis(settings, environ),
        *_alerts(settings, environ),
        *backends,
        *_trials(settings, answering),
    ]


# --------------------------------------------------------------------------- folders


def _folders(settings: Settings) -> Findings:
    yield _published(settings.output_dir)
    yield _writable("log_dir", settings.log_dir)
    yield _writable("ledger folder", settings.ledger.parent)
    yield _writable("Metaflow's folder", store_folder(settings.root))
    if why := why_store_not_held(settings.root):
        yield Finding("fault", "Metaflow's lock", why)


def _published(folder: Path) -> Finding:
    """Outputs are published by hard links, so the output folder should take them."""
    found = _writable("output_dir", folder)
    if found.level != "ok" or _takes_links(_existing(folder)):
        return found
    return Finding("warning", "output_dir", f"{folder} takes no hard links; outputs are copied")


def _writable(subject: str, folder: Path) -> Finding:
    there = _existing(folder)
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        return Finding("fault", subject, f"{there} cannot be written to: {error.strerror}")
    made = "can be written to" if there == folder else "is not there yet, and can be made"
    return Finding("ok", subject, f"{folder} {made}")


def _takes_links(folder: Path) -> bool:
    with tempfile.TemporaryDirectory(prefix=".check-", dir=folder) as name:
        file = Path(name, "file")
        file.touch()
        try:
            Path(name, "link").hardlink_to(file)
        except OSError:
            return False
        return True


def _existing(path: Path) -> Path:
    """Give the path, or the nearest thing above it that exists."""
    return next(above for above in (path, *path.parents) if os.path.lexists(above))


# --------------------------------------------------------------------------- file systems


def _inbox(settings: Settings) -> Findings:
    folder = settings.inbox
    try:
        with os.scandir(folder):
            yield Finding("ok", "inbox", f"{folder} can be read")
    except OSError as error:
        yield Finding("fault", "inbox", f"{folder} cannot be read: {error.strerror}")
        return
    yield from inbox_on(fs_type(folder), folder, settings.watch.observer)


def inbox_on(fs: str, folder: Path, observer: str) -> Findings:
    """Say what an inbox's type of file system means: its events, and its read leases."""
    if not is_network_fs(fs):
        yield Finding("ok", "read leases", f"{fs or 'the file system'} is local and grants them")
        return
    if observer == "inotify":
        text = f"{folder} is on {fs}: events of other hosts are lost; set watch.observer to auto"
        yield Finding("warning", "inbox events", text)
    else:
        yield Finding("ok", "inbox events", f"{folder} is on {fs}: polled")
    yield Finding("ok", "read leases", f"none on {fs}: quiet times are at least 10 s")


def _ledger(settings: Settings) -> Finding:
    if why := fault_of(settings.ledger):
        return Finding("fault", "ledger", why)
    return ledger_on(fs_type(settings.ledger.parent), settings.ledger.parent)


def ledger_on(fs: str, folder: Path) -> Finding:
    """Say whether SQLite's WAL works on a type of file system."""
    if is_network_fs(fs):
        text = f"{folder} is on {fs}, and SQLite needs a local disk; set paths.ledger"
        return Finding("fault", "ledger", text)
    return Finding("ok", "ledger", f"{folder} is on a local file system ({fs or 'unknown'})")


def _free_space(settings: Settings) -> Finding:
    try:
        free_bytes = shutil.disk_usage(_existing(settings.output_dir)).free
    except OSError as error:
        return Finding("fault", "free space", f"cannot be learnt: {error.strerror}")
    return free_space(free_bytes, settings.output_dir)


def free_space(free_bytes: int, folder: Path) -> Finding:
    """Say whether there is room for outputs."""
    text = f"{free_bytes / 10**9:.1f} GB for {folder}"
    return Finding("warning" if free_bytes < LOW_SPACE_BYTES else "ok", "free space", text)


# --------------------------------------------------------------------------- inotify


def _events(settings: Settings) -> Finding:
    if settings.watch.observer == "poll":
        seconds = settings.watch.poll_seconds
        return Finding("ok", "inotify", f"not used; the inbox is looked at every {seconds:g} s")
    return watched(_existing(settings.inbox))


def watched(folder: Path) -> Finding:
    """Watch a folder for a moment."""
    names = ("max_user_instances", "max_user_watches")
    limits = ", ".join(f"{name} {_limit(name)}" for name in names)
    if failure := _watch(folder):
        return Finding("warning", "inotify", f"{failure}; polling is used ({limits})")
    return Finding("ok", "inotify", f"the inbox can be watched ({limits})")


def _limit(name: str) -> str:
    try:
        return (INOTIFY_LIMITS / name).read_text().strip()
    except OSError:
        return "unknown"


def _watch(folder: Path) -> str:
    """Give what went wrong, or ""."""
    try:
        observer = InotifyObserver()  # takes an inotify instance already
        observer.schedule(FileSystemEventHandler(), str(folder))
        observer.start()
    except OSError as error:
        return error.strerror or str(error)
    observer.stop()
    observer.join()
    return ""


# --------------------------------------------------------------------------- programs


def _flow(settings: Settings, environ: Mapping[str, str]) -> Findings:
    yield _compiles(FLOW_FILE)
    yield _python("Metaflow", "can be imported", environ, "import metaflow")
    yield _transform(settings, environ)
    yield _user(environ)


def _analysis(settings: Settings, environ: Mapping[str, str]) -> Findings:
    stage = settings.stages["analyze"]
    if stage.command and stage.executor == "local":
        program = stage.command[0]
        found = shutil.which(program, path=environ.get("PATH", os.defpath))
        text = f"{found} analyses" if found else f"no program {program!r} on PATH"
        yield Finding("ok" if found else "fault", "analyze", text)


def _alerts(settings: Settings, environ: Mapping[str, str]) -> Findings:
    if settings.alerts.command:
        program = settings.alerts.command[0]
        found = shutil.which(program, path=environ.get("PATH", os.defpath))
        text = f"{found} is told" if found else f"no program {program!r} on PATH: nobody is told"
        yield Finding("ok" if found else "warning", "alerts", text)


def _transform(settings: Settings, environ: Mapping[str, str]) -> Finding:
    spec = settings.compute.transform
    places = str(FLOW_FILE.parent), spec, str(settings.root)
    return _python("transform", f"{spec} is in", environ, _TRY_TRANSFORM, *places)


def _user(environ: Mapping[str, str]) -> Finding:
    given = (environ.get(name, "") for name in USER_VARIABLES)
    user = next((name for name in given if name not in {"", "root"}), None)
    return Finding("ok", "Metaflow user", user or "none in the environment; the flow sets its own")


def _compiles(file: Path) -> Finding:
    try:
        compile(file.read_bytes(), file, "exec")
    except OSError as error:
        return Finding("fault", "flow", f"{file} cannot be read: {error.strerror}")
    except (SyntaxError, ValueError) as error:
        return Finding("fault", "flow", f"{file} is no Python: {error}")
    return Finding("ok", "flow", f"{file} compiles")


def _python(subject: str, good: str, environ: Mapping[str, str], *code: str) -> Finding:
    """Run code in an interpreter of its own, as a run does; its last line completes `good`."""
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


def _bash(environ: Mapping[str, str]) -> Finding:
    bash = shutil.which("bash", path=environ.get("PATH", os.defpath))
    if bash is None:
        return Finding("fault", "bash", "is not on PATH")
    if not COMBINE_SCRIPT.is_file():
        return Finding("fault", "bash", f"{COMBINE_SCRIPT} is missing")
    return Finding("ok", "bash", f"{bash} runs {COMBINE_SCRIPT}")


# --------------------------------------------------------------------------- backends


def unreachable_backends(settings: Settings, environ: Mapping[str, str]) -> Findings:
    """Say of each backend that is used whether it answers; quickly, as at every start."""
    for executor in sorted({stage.executor for stage in settings.stages.values()}):
        yield REACHABLE[executor](settings, settings.run_environment(environ))


def _local(_settings: Settings, _environ: Mapping[str, str]) -> Finding:
    return Finding("ok", "local", "jobs run as child processes")


def _lsf(settings: Settings, environ: Mapping[str, str]) -> Finding:
    """Ask for a job that never was: LSF's answer is that there is none."""
    limit_s = min(settings.site.lsf.command_seconds, ENGINE_LIMIT_SECONDS)
    try:
        answer = call(["bjobs", "-J", "ds-flow-check"], limit_s, cwd=settings.root, environ=environ)
    except DispatchError as error:
        return Finding("fault", "lsf", str(error))
    if answer.timed_out or "Cannot connect" in answer.text or "down" in answer.text:
        said = answer.text[:200] or f"nothing within {limit_s:g} s"
        return Finding("warning", "lsf", f"does not answer ({said}); jobs wait until it does")
    return Finding("ok", "lsf", "answers")


def _docker(settings: Settings, environ: Mapping[str, str]) -> Finding:
    """Say whether the engine answers, and whether it has or can get every image."""
    site = replace(settings.site.docker, command_seconds=ENGINE_LIMIT_SECONDS)
    images = sorted({one.image for one in settings.stages.values() if one.executor == "docker"})
    try:
        for name in images:
            if why := unobtainable(Engine(site, environ), name):
                text = f"the image {name} is not here and {why}"
                return Finding("fault", "docker", f"{text}; load it, or name another")
    except DispatchError as error:
        todo = "start it, or let this user talk to it (group docker)"
        return Finding("fault", "docker", f"{site.command}: {error}; {todo}")
    return Finding("ok", "docker", f"{site.command} answers; images: {', '.join(images)}")


REACHABLE: dict[str, Callable[[Settings, Mapping[str, str]], Finding]] = {
    "local": _local,
    "lsf": _lsf,
    "docker": _docker,
}


def _trials(settings: Settings, answering: Container[str]) -> Findings:
    """Run one job for each stage that runs elsewhere, where something answers."""
    for name, stage in settings.stages.items():
        # No job for an analysis that is not, or in an image that may hold nothing but it.
        is_tried = name != "analyze" or (stage.command and stage.executor == "lsf")
        if stage.executor == "local" or stage.executor not in answering or not is_tried:
            continue
        where = stage.queue if stage.executor == "lsf" else stage.image
        level, text = probe_job.attempt(settings, name)
        yield Finding(level, f"{name} on {stage.executor} ({where})", text)
