"""Every durable step of the line, died at: `make crash` lists them all with their results.

A clean run tells its steps (see `hooks/step_log.py`). Then, for each step, a new project is worked
on by processes of which one dies there; a second start finishes, and the outside checker looks.
With `all` every process dies at once; with `twice` the second start dies, too, at a step of its
own.
"""

import json
import os
import random
import shutil
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from chaos.checker import check
from chaos.drops import Journal
from project import Project

HOOKS = Path(__file__).parent / "hooks"
MODES = ("one", "all", "twice")
PATIENCE_SECONDS = 600.0  # on a machine that others load
SECOND_STEPS = 25  # a second death comes at one of the first steps of the second start


@dataclass(frozen=True, slots=True)
class Point:
    """Where to die, and how."""

    step: str
    mode: str
    second: int = 0  # the second start's step

    def __str__(self) -> str:
        then = f", then at step {self.second} of the next start" if self.mode == "twice" else ""
        return f"{self.step} ({self.mode}{then})"


@contextmanager
def stage(folder: Path) -> Iterator[tuple[Project, Journal]]:
    """A small project with every kind of work: tables of unlike columns, and a bad file."""
    then = [["sh", "-c", 'echo "$DS_FLOW_RUN_ID" >>taken', "-"]]
    project = Project(
        folder / "project",
        publish={"then": then, "retry_first_seconds": 0.1},
        inbox={"receipts": True},
        outputs={"parquet": True},
    )
    journal = Journal()
    project.patience_s = PATIENCE_SECONDS
    project.drop("student_a.csv", journal.good(2).text)
    project.drop("student_b.csv", journal.good(2, "other").text)
    project.drop("student_bad.csv", journal.bad().text)
    try:
        yield project, journal
    finally:
        project.end_everything()


def work(
    project: Project,
    log: Path,
    die: str = "",
    *,
    everyone: bool = False,
    store: Path | None = None,
) -> int:
    """Let `ds-flow once` work, dying where it is told to; its exit code.

    On one core, so that a run is cut into one group and takes the same steps each time.
    """
    own = {
        "PYTHONPATH": str(HOOKS),
        "PATH": f"{HOOKS / 'bin'}:{os.environ['PATH']}",
        "STEPS_ROOT": str(project.root),
        "STEPS_CODE": str(HOOKS),
        "STEPS_LOG": str(log),
        "STEPS_DIE": die,
        "STEPS_ALL": "1" if everyone else "",
        "STEPS_STORE": str(store or ""),
    }
    before, project.environment = project.environment, {**project.environment, **own}
    try:
        cores = sorted(os.sched_getaffinity(0))
        project.prefix = ("taskset", "-c", str(cores[threading.get_native_id() % len(cores)]))
        return project.once().returncode
    finally:
        project.environment = before


def steps(folder: Path) -> list[str]:
    """The steps of a clean run, in order."""
    with stage(folder) as (project, journal):
        log = folder / "steps"
        assert work(project, log) == 1  # a file was set aside
        check(project, journal).require_whole()
        return log.read_text(encoding="utf-8").splitlines()


def survives(point: Point, folder: Path) -> list[str]:
    """Die there, start again, and look; what is wrong then."""
    with stage(folder) as (project, journal):
        everyone = point.mode != "one"
        work(project, folder / "first", point.step, everyone=everyone)
        if not (folder / "first.died").exists():
            return ["this step did not come"]
        if point.mode == "twice":
            work(project, folder / "second", str(point.second), everyone=True)
        ended = project.once()
        found = check(project, journal)
        wrong = [f"{finding.kind}: {finding.what}" for finding in found.findings]
        wrong += [*not_handed_over(project), *without_receipt(project)]
        wrong += [f"exit code {ended.returncode}: {ended.stderr}"] if ended.returncode > 1 else []
        wrong += [f"set aside: {found.set_aside}"] if found.set_aside else []
        return wrong


def not_handed_over(project: Project) -> list[str]:
    """The runs that were published and that no command has got."""
    path = project.root / "taken"
    taken = path.read_text(encoding="utf-8").split() if path.exists() else []
    published = [manifest.run_id for manifest in project.manifests()]
    return [f"not handed over: {run_id}" for run_id in published if run_id not in taken]


def without_receipt(project: Project) -> list[str]:
    """The files whose receipts are not those of what became of them."""
    wanted = {"student_a.csv": "published", "student_b.csv": "published"}
    wanted["student_bad.csv"] = "quarantined"
    folder = project.inbox / "receipts"
    paths = {name: folder / f"{name}.json" for name in wanted}
    told = {
        name: json.loads(path.read_bytes())["state"] if path.exists() else "no receipt"
        for name, path in paths.items()
    }
    return [f"{name}: {told[name]}" for name in wanted if told[name] != wanted[name]]


def result(point: Point) -> tuple[Point, list[str]]:
    folder = Path(tempfile.mkdtemp(prefix="ds-flow-crash-"))
    try:
        return point, survives(point, folder)
    finally:
        shutil.rmtree(folder)


def points(found: Sequence[str], modes: Sequence[str], seed: int) -> list[Point]:
    rng = random.Random(seed)
    return [Point(step, mode, rng.randrange(SECOND_STEPS)) for mode in modes for step in found]


def main(argv: Sequence[str]) -> int:
    """Print every point with its result; 1 if one of them is not survived."""
    modes = tuple(argv) or MODES
    seed, sample = int(os.environ.get("SEED", "0")), int(os.environ.get("CRASH_SAMPLE", "0"))
    with tempfile.TemporaryDirectory(prefix="ds-flow-crash-") as folder:
        found = steps(Path(folder))
    print(f"{len(found)} durable steps in a clean run")
    chosen = points(found, modes, seed)
    chosen = [point for point in chosen if os.environ.get("CRASH_STEPS", "") in point.step]
    if sample:
        chosen = random.Random(seed).sample(chosen, sample)
    results: Counter[str] = Counter()
    with ThreadPoolExecutor(int(os.environ.get("CRASH_JOBS", "2"))) as pool:
        for point, wrong in pool.map(result, chosen):
            verdict = "ok" if not wrong else "NOT COME" if "did not come" in wrong[0] else "FAILED"
            results[verdict] += 1
            print(f"{verdict:8} {point}", *wrong, sep="\n         ", flush=True)
    print(", ".join(f"{count} {verdict}" for verdict, count in results.items()))
    return 1 if results["FAILED"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
