"""The process stage without Metaflow: which file is to blame, and what is done again."""

import errno
import hashlib
import json
import os
import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from backends import lsf
from ds_flow.core.errors import DispatchError, NoRoomError
from ds_flow.core.manifest import Manifest, Rejected
from ds_flow.core.plan import Options, Plan, PlannedFile, Site, StageOptions
from ds_flow.core.states import ATTEMPT_MARK, FailureClass
from ds_flow.dispatch import JobSpec, Outcome, local_jobs, open_round, rounds_in, run_stage
from ds_flow.work import analyses
from ds_flow.work.batch import Batch
from ds_flow.work.results import Result
from power import Power
from samples import BATCH
from steps import job_exit, process, publish, start
from steps.align_job import align_files
from steps.analyze import analyze_combined
from steps.combine import combine_files
from steps.failures import recorded
from steps.jobs import LAST_LINE_CHARACTERS
from steps.process import process_shards

pytestmark = pytest.mark.usefixtures("forked_jobs")

NAMES = ("a", "b", "c")

Verdicts = dict[str, Result | Rejected | None]


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A planned batch of three files, whose transform is the project's `mine.py`."""
    options = Options(
        project_name="test",
        root=str(tmp_path),
        output_dir=str(tmp_path / "out"),
        log_dir=str(tmp_path / "log"),
        transform="mine:transform",
        stages={name: StageOptions() for name in ("process", "combine", "analyze")},
    )
    files = []
    for name in NAMES:
        path = tmp_path / "data" / f"{name}.csv"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"id\n{name}\n")
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        files.append(PlannedFile(path=f"data/{name}.csv", version=1, sha256=sha256, size_bytes=5))
    plan = Plan(batch=BATCH, trigger="arrival", formed_at="", files=tuple(files), options=options)
    monkeypatch.setenv(ATTEMPT_MARK, f"{BATCH}/1")
    return Batch.create(tmp_path / "out", plan).folder


def transform(work: Path, on_b: str) -> None:
    """Let the transform do something on the second file."""
    (work.parents[2] / "mine.py").write_text(
        "import os\n"
        "def transform(frame):\n"
        "    if frame['id'][0] == 'b':\n"
        f"        {on_b}\n"
        "    return frame\n"
    )


def replan(work: Path, site: Site | None = None, **own: StageOptions) -> None:
    """Give stages other options."""
    plan = Batch(work).plan
    stages = {**plan.options.stages, **own}
    options = replace(plan.options, stages=stages, site=site or plan.options.site)
    (work / "batch.json").unlink()
    Batch.create(work.parents[1], replace(plan, options=options))


def verdicts(work: Path) -> Verdicts:
    results = Batch(work).results
    return {name: results.get(name) for name in NAMES}


@pytest.mark.parametrize(
    ("on_b", "reason"),
    [
        ("os._exit(0)", "it ended without a result"),
        ("os._exit(3)", "exit code 3"),
        *((f"os._exit({code})", f"exit code {code}") for code in sorted(job_exit.OWN)),
        ("os.abort()", "crashed by SIGABRT"),
        (
            "raise MemoryError('74 GiB')",
            "mine.py:4: raise MemoryError('74 GiB'): MemoryError: 74 GiB",
        ),
        ("raise KeyboardInterrupt", "killed by SIGINT"),
        ("os.killpg(0, 15)", "killed by SIGTERM"),
        ("os.closerange(0, 1024)", job_exit.OUT_OF_FILES_REASON),
        ("os.closerange(3, 1024)", job_exit.OUT_OF_FILES_REASON),
    ],
)
@pytest.mark.parametrize("fork", [pytest.param(False, marks=pytest.mark.exhaustive), True])
def test_a_file_that_ends_its_process_is_set_aside_alone(
    work: Path, on_b: str, reason: str, monkeypatch: pytest.MonkeyPatch, *, fork: bool
) -> None:
    if not fork:
        monkeypatch.setattr(local_jobs, "_programs", {})
    transform(work, on_b)

    process_shards(Batch(work), "1of1", [(0, 2)])

    found = verdicts(work)
    assert isinstance(found["a"], Result)
    assert isinstance(found["c"], Result)
    assert isinstance(found["b"], Rejected)
    assert found["b"].reason.startswith(f"the process crashed on this file alone: {reason}")


@pytest.mark.parametrize("on_b", ["os.fork()", "os.umask(0o777)"])
def test_what_a_transform_leaves_behind_in_its_process_does_no_harm(work: Path, on_b: str) -> None:
    transform(work, on_b)

    process_shards(Batch(work), "1of1", [(0, 2)])

    results = Batch(work).results
    for found in verdicts(work).values():
        assert isinstance(found, Result)
        assert (results.folder / found.output).stat().st_mode & 0o444


def test_a_file_whose_process_the_kernel_kills_for_want_of_memory_is_set_aside_alone(
    work: Path,
) -> None:
    # What run_job.sh leaves then; tests/service/test_systemd.py has a real one.
    rounds = f"pathlib.Path({str(work)!r}).glob('jobs/*/*')"
    mark = f"[(round / '1.starved').write_text('2048 group\\n') for round in {rounds}]"
    transform(work, f"import pathlib; {mark}; os.kill(os.getpid(), 9)")

    process_shards(Batch(work), "1of1", [(0, 2)])

    found = verdicts(work)
    assert isinstance(found["a"], Result)
    assert isinstance(found["c"], Result)
    assert isinstance(found["b"], Rejected)
    said = "the process crashed on this file alone: out of memory: killed by the kernel"
    assert found["b"].reason == f"{said} (its control group allows 2,048 MB)"


@pytest.mark.exhaustive
def test_a_file_that_needs_more_memory_than_a_job_may_have_is_set_aside_with_the_figure(
    work: Path,
) -> None:
    transform(work, "kept = bytearray(700 << 20); os.read(os.pipe()[0], 1)")
    with lsf(work / "cluster", "ibm", memory_checked_below_mb=1000) as place:
        site = replace(place.site, memory_factor=1.1)
        replan(work, site=site, process=StageOptions(executor="lsf", queue="short", memory_mb=500))

        process_shards(Batch(work), "1of1", [(0, 2)])

    found = verdicts(work)
    assert isinstance(found["a"], Result)
    assert isinstance(found["c"], Result)
    assert isinstance(found["b"], Rejected)
    assert "TERM_MEMLIMIT" in found["b"].reason
    assert re.fullmatch(
        r"the process crashed on this file alone, on \S+ \([0-9]+\[1\]\): memory limit reached"
        r" \(TERM_MEMLIMIT\): it needed more than 605 MB; raise compute.stages.process.memory_mb",
        found["b"].reason,
    )


def test_a_transform_that_leaves_no_file_to_open_costs_the_files_after_it_nothing(
    work: Path,
) -> None:
    leak = "resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64)); [os.dup(0) for _ in range(64)]"
    transform(work, f"import resource; {leak}")

    process_shards(Batch(work), "1of1", [(0, 2)])

    found = verdicts(work)
    assert isinstance(found["a"], Result)
    assert isinstance(found["c"], Result)
    assert isinstance(found["b"], Rejected)
    # whether in the transform or right after it depends on what else is open
    assert re.search("Too many open files|left none to open", found["b"].reason)


def test_a_transform_that_is_not_there_blames_no_file(work: Path) -> None:
    with pytest.raises(DispatchError, match="mine:transform"):
        process_shards(Batch(work), "1of1", [(0, 2)])

    assert set(verdicts(work).values()) == {None}


def test_the_process_stage_reads_the_runs_folders_in_the_archive(work: Path) -> None:
    plan = Batch(work).plan
    kept = replace(plan.files[0], kept_at=f"archive/17/{plan.files[0].path}")
    gone = replace(plan.files[1], kept_at=f"archive/18/{plan.files[1].path}")
    root = Path(plan.options.root)
    (root / "archive" / "17").mkdir(parents=True, exist_ok=True)
    found = set(process._inputs(replace(plan, files=(kept, gone, plan.files[2]))))
    assert root / "archive" / "17" in found
    assert root / "archive" / "18" not in found


def test_the_process_stage_reads_all_that_the_transform_may_import(work: Path) -> None:
    root = work.parents[2]
    own = {root / "flows", root / "mine", root / "mine.py"}
    for path in own:
        path.mkdir()

    reads = process.ProcessStage(Batch(work), "process-0").job((0, 2, "")).reads
    assert own < set(reads)


def test_the_next_attempt_judges_again_what_the_transform_raised_on_and_nothing_else(
    work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    transform(work, f"open({str(tmp_path / 'ran')!r}, 'a').write('x'); raise ValueError('busy')")

    process_shards(Batch(work), "1of1", [(0, 2)])
    first = verdicts(work)
    monkeypatch.setenv(ATTEMPT_MARK, f"{BATCH}/2")
    process_shards(Batch(work), "1of1", [(0, 2)])

    assert (tmp_path / "ran").read_text() == "xx"
    assert {name: verdicts(work)[name] for name in "ac"} == {name: first[name] for name in "ac"}


OUTCOME = Outcome(
    key="k",
    index=1,
    round=f"dsf-{BATCH}-process-1of1-1",
    opened_by=f"{BATCH}/1",
    failure=None,
    reason="",
    exit_code=0,
    host="",
    native_id="",
    started_at="",
    ended_at="",
)


@pytest.fixture
def left(work: Path) -> Callable[[Outcome], list[process.Part]]:
    transform(work, "pass")
    stage = process.ProcessStage(Batch(work), "process-1of1")
    return lambda outcome: stage.left((0, 2, ""), outcome)


def test_a_file_that_takes_longer_than_the_limit_is_tried_alone(
    left: Callable[[Outcome], list[process.Part]],
) -> None:
    ended = replace(OUTCOME, failure=FailureClass.LIMIT, reason="run limit reached", exit_code=124)

    assert left(ended) == [(0, 0, ""), (1, 2, "")]


def test_a_job_that_left_no_exit_code_blames_no_file(
    work: Path, left: Callable[[Outcome], list[process.Part]]
) -> None:
    job = JobSpec(key="k", command=("true",))
    run_stage(
        work / "jobs" / "process-1of1",
        executor="local",
        site=Site(),
        batch=BATCH,
        attempt="1",
        jobs=[job],
    )
    lost = replace(OUTCOME, failure=FailureClass.INFRASTRUCTURE, reason="lost", exit_code=None)

    with pytest.raises(DispatchError, match="lost"):
        left(lost)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def test_a_run_that_finds_no_room_says_so_and_blames_no_file(work: Path, code: int) -> None:
    transform(work, f"raise OSError({code}, 'No space left on device')")
    attempt = work / "attempts" / "1"
    attempt.mkdir()

    with pytest.raises(NoRoomError), recorded(Batch(work)):
        process_shards(Batch(work), "1of1", [(0, 2)])

    assert (attempt / "no_room").exists()
    assert verdicts(work)["b"] is None


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def test_a_step_that_finds_no_room_itself_says_so(work: Path, code: int) -> None:
    attempt = work / "attempts" / "1"
    attempt.mkdir()

    with pytest.raises(OSError, match="disk"), recorded(Batch(work)):
        raise OSError(code, "the disk")

    assert (attempt / "no_room").exists()


def analyzed(work: Path, **given: Any) -> dict[str, Any]:
    """What comes of an analysis of these settings."""
    plan = Batch(work).plan
    options = {**plan.options.stages, "analyze": StageOptions(**given)}
    (work / "batch.json").unlink()
    output_dir = work.parents[1]
    Batch.create(output_dir, replace(plan, options=replace(plan.options, stages=options)))
    analysis = analyze_combined(Batch(work), output_dir / "combined.csv")
    assert analysis is not None
    return analysis


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (
            "import json\ndef f():\n    json.loads('{')\nf()\n",
            "exit code 1: count.py:3: json.loads('{'): json.decoder.JSONDecodeError: Expecting",
        ),
        ("def f(:\n    pass\n", "exit code 1: count.py:1: def f(:: SyntaxError: invalid syntax"),
        # what does not end in a traceback, or in none of the project's files, is told as it is
        ("raise SystemExit('no rows')\n", "exit code 1: no rows"),
        (
            "print('T:\\n  File \"/etc/passwd\", line 1\\n    x\\nKeyError')\n1 and exit(1)",
            "exit code 1: KeyError",
        ),
    ],
)
def test_an_analysis_in_python_that_fails_is_told_with_its_own_line(
    work: Path, code: str, said: str
) -> None:
    script = work.parents[2] / "count.py"
    script.write_text(code)

    error = analyzed(work, command=("python3", str(script)))["error"]

    assert said in error
    assert "passwd" not in error


@pytest.mark.parametrize(
    ("command", "limit_minutes", "said"),
    [
        (("sh", "-c", "echo 3 rows; echo no R here >&2; exit 3"), 1, "exit code 3: no R here"),
        (("no-such-program",), 1, "exit code 127: timeout: failed to run command"),
        (("sh", "-c", "kill -SEGV $$"), 1, "crashed by SIGSEGV"),
        (("sh", "-c", "kill -KILL $$"), 1, "killed by SIGKILL"),
        (
            ("tail", "-f", "/dev/null"),
            0.002,
            "run limit of 0.002 minutes reached; raise compute.stages.analyze.limit_minutes",
        ),
    ],
)
def test_an_analysis_that_fails_says_so_and_fails_nothing_else(
    work: Path, command: tuple[str, ...], limit_minutes: float, said: str
) -> None:
    analysis = analyzed(work, command=command, limit_minutes=limit_minutes)

    assert said in analysis["error"]
    assert analysis["command"] == list(command)


@pytest.mark.parametrize("name", ["python", "python3"])
def test_a_python_analysis_has_the_packages_of_this_environment(work: Path, name: str) -> None:
    analysis = analyzed(work, command=(name, "-c", "import pandas, sys; print(sys.prefix)"))

    assert (analysis["error"], analysis["stdout"]) == ("", f"{sys.prefix}\n")
    assert analysis["command"][0] == sys.executable


def test_a_reason_holds_only_the_beginning_of_a_long_last_line(work: Path) -> None:
    analysis = analyzed(work, command=("sh", "-c", "seq -s, 5000; exit 3"))

    assert ": exit code 3: 1,2,3," in analysis["error"]
    assert analysis["error"].endswith(" ...")
    assert len(analysis["error"]) < 2 * LAST_LINE_CHARACTERS
    assert analysis["stdout"].endswith(",5000\n")


def test_what_a_failed_analysis_printed_is_kept(work: Path) -> None:
    analysis = analyzed(work, command=("sh", "-c", "echo 3 rows; exit 1"))

    assert analysis["stdout"] == "3 rows\n"


def test_an_analysis_that_runs_out_of_memory_has_failed(work: Path) -> None:
    rounds = work / "jobs" / "analyze"
    mark = f"for round in {rounds}/*; do touch $round/1.starved; done; kill -KILL $$"

    analysis = analyzed(work, command=("sh", "-c", mark))

    assert "out of memory" in analysis["error"]


def test_an_analysis_that_could_not_be_run_is_left_to_the_next_attempt(
    work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "bin" / "bash"  # so that no job leaves an exit code
    broken.parent.mkdir()
    broken.write_text("#!/bin/sh\n")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", f"{broken.parent}:{os.environ['PATH']}")

    with pytest.raises(DispatchError, match="without leaving an exit code"):
        analyzed(work, command=("true",))

    assert analyses.give_up_analysis(Batch(work), 1, "the site is down")
    assert analyzed(work, command=("true",))["error"] == "the site is down"


def test_an_analysis_that_ran_is_not_given_up_for_what_fails_after_it(work: Path) -> None:
    assert analyzed(work, command=("true",))["error"] == ""

    assert not analyses.give_up_analysis(Batch(work), 1, "another file has this name")


def test_an_analysis_that_its_owner_ends_has_failed_and_is_not_begun_again(
    tmp_path: Path, work: Path
) -> None:
    with lsf(tmp_path / "cluster", "ibm") as place:
        ends_itself = ("sh", "-c", f"{shutil.which('bkill')} $LSB_JOBID; tail -f /dev/null")
        replan(work, place.site)
        analysis = analyzed(work, command=ends_itself, executor="lsf", queue="short")
        jobs = len(place.cluster.jobs())

    assert "TERM_OWNER" in analysis["error"]
    assert jobs == 1


def test_a_long_analysis_keeps_its_end_and_says_how_much_is_left_out(work: Path) -> None:
    analysis = analyzed(work, command=("sh", "-c", "seq -w 20000"))  # six bytes a line

    assert analysis["error"] == ""
    mark, *lines = analysis["stdout"].splitlines()
    assert mark == f"... {20000 * 6 - 2**16} earlier bytes are left out"
    assert (len("\n".join(lines)) + 1, lines[-1]) == (2**16, "20000")


# --------------------------------------------------------------------------- what jobs leave


def combined(work: Path) -> Path:
    found = combine_files(Batch(work))
    assert found
    return found


def finished(work: Path, path: Path | None) -> Manifest:
    (work / "attempts" / "1").mkdir(exist_ok=True)
    return publish.finish(
        Batch(work),
        publish.Run(flow="F", run_id="7", started_at="", combined=path, analysis=None),
    ).manifest


def processed(work: Path) -> Result:
    """Process all files, one of which has other columns; the verdict on the first."""
    (work.parents[2] / "mine.py").write_text(
        "def transform(frame):\n"
        "    return frame.assign(more='x') if frame['id'][0] == 'b' else frame\n"
    )
    process_shards(Batch(work), "1of1", [(0, 2)])
    first = verdicts(work)["a"]
    assert isinstance(first, Result)
    return first


def published(work: Path) -> list[str]:
    return [path.name for path in work.parents[1].glob("*.csv")]


def test_the_files_that_were_aligned_are_kept_by_a_power_loss(power: Power, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("x\n1\n")
    folder = tmp_path / "aligned"
    folder.mkdir()
    (folder / "columns.json").write_text('["x", "y"]')

    align_files(folder, f"{tmp_path}/a.csv\0".encode())

    assert power.keeps(folder / "a.csv")


def test_no_job_may_write_but_what_its_stage_leaves(work: Path) -> None:
    processed(work)
    combine_files(Batch(work))

    jobs = {
        stage: next(rounds_in(work / "jobs" / stage)).jobs[0]
        for stage in ("process-1of1", "align", "combine")
    }
    results = Batch(work).results.folder
    (aligned,) = (work / "aligned").iterdir()
    assert {stage: job.writes for stage, job in jobs.items()} == {
        "process-1of1": (results,),
        "align": (aligned,),
        "combine": (work / "combined",),
    }
    assert not [stage for stage, job in jobs.items() if work in job.reads]


@pytest.mark.parametrize(
    "forged", [{"path": "data/b.csv"}, {"version": 2}, {"sha256": "0" * 64}], ids=str
)
def test_a_verdict_on_another_file_or_content_is_none(
    work: Path, forged: dict[str, object]
) -> None:
    row = {**asdict(processed(work)), **forged}
    folder = Batch(work).results.folder
    (folder / "a.json").write_text(json.dumps(row))

    with pytest.raises(DispatchError, match=r"data/a\.csv: no result of the process stage"):
        combine_files(Batch(work))


def test_an_output_that_is_not_what_was_judged_is_not_published(work: Path) -> None:
    first = processed(work)
    path = combined(work)
    output = Batch(work).results.folder / first.output
    output.write_bytes(output.read_bytes().replace(b"a", b"x"))

    with pytest.raises(DispatchError, match=r"data/a\.csv: its output is not what the verdict"):
        finished(work, path)

    assert published(work) == []


@pytest.mark.parametrize("leave", ["link", "fifo", "nothing"])
def test_a_combined_file_that_is_no_plain_one_is_neither_analyzed_nor_published(
    work: Path, tmp_path: Path, leave: str
) -> None:
    processed(work)
    path = combined(work)
    (tmp_path / "private").write_text("s3cr3t\n")
    path.unlink()
    if leave == "link":
        path.symlink_to(tmp_path / "private")
    if leave == "fifo":
        os.mkfifo(path)

    with pytest.raises(DispatchError, match="left no regular file"):
        combine_files(Batch(work))

    with pytest.raises(OSError, match=r"regular file|symbolic link|No such file"):
        finished(work, path)
    assert published(work) == []


def test_a_round_that_is_open_when_a_run_publishes_is_no_job_of_the_manifest(work: Path) -> None:
    processed(work)
    path = combined(work)
    closed = len(list((work / "jobs").glob("*/*/verdict.json")))
    job = JobSpec(key="left", command=("true",))
    for stage in ("process-2of2", "analyze"):
        open_round(work / "jobs" / stage, BATCH, f"{BATCH}/1", "local", [job], [job.command])

    made = finished(work, path)

    assert len(made.jobs) == closed
    assert "left" not in {job["key"] for job in made.jobs}


def test_a_link_that_a_job_left_is_not_written_through(work: Path, tmp_path: Path) -> None:
    processed(work)
    path = combined(work)
    (victim := tmp_path / "victim").write_text("precious")
    (aligned,) = (work / "aligned").iterdir()
    lists = [path.with_suffix(".list"), aligned / "columns.json", aligned / "sources.list"]
    for each in lists:
        each.unlink()
        each.symlink_to(victim)

    assert combine_files(Batch(work)) == path

    assert victim.read_text() == "precious"
    assert [each.is_symlink() for each in lists] == [False] * 3


def test_local_work_has_a_task_for_each_usable_core_and_work_elsewhere_one(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {0, 5})
    monkeypatch.delenv(ATTEMPT_MARK)
    plan = Batch(work).plan
    one_each = replace(plan, files=tuple(replace(one, size_bytes=2**40) for one in plan.files))
    monkeypatch.setattr(Batch, "plan", one_each)
    assert start.begin(Batch(work), "7") == [[(0, 0)], [(1, 1), (2, 2)]]

    on_lsf = {**plan.options.stages, "process": StageOptions(executor="lsf")}
    one_each = replace(one_each, options=replace(one_each.options, stages=on_lsf))
    monkeypatch.setattr(Batch, "plan", one_each)
    assert start.begin(Batch(work), "7") == [[(0, 0), (1, 1), (2, 2)]]
