"""The stand-in for LSF says and does what is known of LSF: one test a fact."""

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import pytest

from lsf import Cluster, Job
from project import until

FIELDS = "jobid jobindex stat exit_code exit_reason job_name"
AWAIT_GO = "until [ -e go ]; do sleep 0.02; done"
ARRAY = 'echo "$LSB_JOBINDEX" >"ran.$LSB_JOBINDEX"\n'


def call(
    cluster: Cluster, *argv: str, stdin: str = "", **env: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        argv,
        input=stdin,
        env=cluster.env | env,
        cwd=cluster.folder,
        text=True,
        capture_output=True,
        check=False,
    )


@contextmanager
def calling(cluster: Cluster, *argv: str, stdin: str = "") -> Iterator[subprocess.Popen[str]]:
    """A command that is at work; it is killed in the end."""
    with subprocess.Popen(
        argv,
        env=cluster.env,
        cwd=cluster.folder,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin
        process.stdin.write(stdin)
        process.stdin.close()
        process.stdin = None
        try:
            yield process
        finally:
            process.kill()


def submit(cluster: Cluster, *argv: str, script: str = ARRAY, **env: str) -> int:
    done = call(cluster, "bsub", *argv, stdin=script, **env)
    found = re.fullmatch(r"Job <(\d+)> is submitted to (default )?queue <\w+>\.\n", done.stdout)
    assert (done.returncode, done.stderr) == (0, "")
    assert found
    return int(found[1])


def await_end(cluster: Cluster) -> list[Job]:
    until("every job ended", lambda: all(job.ended_at for job in cluster.jobs()), every=0.02)
    return cluster.jobs()


def await_run(cluster: Cluster, *files: str) -> None:
    """Until jobs have made these files, by which they say that they are ready."""
    paths = [cluster.folder / file for file in files]
    until(f"{files} were there", lambda: all(path.exists() for path in paths), every=0.02)


def records(cluster: Cluster, *argv: str) -> list[dict[str, str]]:
    done = call(cluster, "bjobs", "-a", "-o", FIELDS, "-json", *argv)
    found: list[dict[str, str]] = json.loads(done.stdout)["RECORDS"]
    return found


def states(cluster: Cluster) -> list[str]:
    return [record["STAT"] for record in records(cluster)]


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with Cluster(tmp_path, minute_s=0.1, kill_interval_s=0.2, scheduling_delay_s=0.01) as started:
        yield started
        assert not started.log()


@pytest.fixture
def openlava(tmp_path: Path) -> Iterator[Cluster]:
    with Cluster(tmp_path, "openlava") as started:
        yield started
        assert not started.log()


# Submission


def test_success_is_one_line_that_names_the_job_and_the_queue(cluster: Cluster) -> None:
    in_default = call(cluster, "bsub", stdin="true\n")
    in_normal = call(cluster, "bsub", "-q", "normal", stdin="true\n")

    assert re.fullmatch(r"Job <\d{4}> is submitted to default queue <short>\.\n", in_default.stdout)
    assert re.fullmatch(r"Job <\d{4}> is submitted to queue <normal>\.\n", in_normal.stdout)


REFUSALS = [
    (["-q", "none"], "true\n", "none: No such queue. Job not submitted.\n"),
    (["-J", "a[1-1001]"], "true\n", "Job array index too large. Job not submitted.\n"),
    (["-J", "a[1001]"], "true\n", "Job array index too large. Job not submitted.\n"),
    (["-J", "a[0-3]"], "true\n", "Job array index error. Job not submitted.\n"),
    (["-J", "a b[1-3]"], "true\n", "a b[1-3]: Bad job name. Job not submitted.\n"),
    (
        ["-J", "a[1-2]", "-K"],
        "true\n",
        "Job array doesn't support -K option. Job not submitted.\n",
    ),
    (["-R", "span[hosts=1"], "true\n", "Bad resource requirement syntax. Job not submitted.\n"),
    ([], "", "No command is specified. Job not submitted.\n"),
]


def test_every_refusal_exits_255_and_only_the_text_differs(cluster: Cluster) -> None:
    for argv, script, text in REFUSALS:
        done = call(cluster, "bsub", *argv, stdin=script)
        assert (done.returncode, done.stdout, done.stderr) == (255, "", text)

    assert cluster.jobs() == []


def test_a_script_on_stdin_is_spooled_with_its_bsub_lines_and_the_command_line_wins(
    cluster: Cluster,
) -> None:
    script = "#!/bin/bash\n#BSUB -q normal\n#BSUB -J own[1-2]\necho ${BASH_VERSION:0:1} >bash\n"
    submit(cluster, "-J", "given[3]", script=script)

    (job,) = await_end(cluster)
    assert (job.name, job.index, job.queue) == ("given", 3, "normal")
    assert (cluster.folder / "bash").read_text().strip().isdecimal()


def test_a_command_is_joined_into_one_shell_line_that_loses_quotes_and_empty_words(
    cluster: Cluster,
) -> None:
    done = call(cluster, "bsub", "printf", "%s.", "", "$LSB_JOBINDEX x", ">said;", "echo", "two")

    assert done.returncode == 0
    await_end(cluster)
    assert (cluster.folder / "said").read_text() == "0 x."


def test_the_environment_is_copied_but_for_home_and_lsb(cluster: Cluster) -> None:
    script = 'printf "%s|" "$MINE" "$HOME" "$LSB_OWN" "$LSB_QUEUE" >env\n'
    submit(cluster, script=script, MINE="1", HOME="/nowhere", LSB_OWN="1")

    await_end(cluster)
    mine, home, lsb, queue, _ = (cluster.folder / "env").read_text().split("|")
    assert (mine, lsb, queue) == ("1", "", "short")
    assert home != "/nowhere"


def test_env_chooses_variables_and_may_be_4094_characters_long(cluster: Cluster) -> None:
    script = 'printf "%s|" "$A" "$B" "$C" >env\n'
    submit(cluster, "-env", "all,~A,B=2", script=script, A="1", B="1", C="1")

    await_end(cluster)
    assert (cluster.folder / "env").read_text() == "|2|1|"
    assert call(cluster, "bsub", "-env", "A=" + "x" * 4094, stdin="true\n").returncode == 255


def test_a_missing_directory_means_tmp(cluster: Cluster) -> None:
    place = cluster.folder / "where"
    submit(cluster, "-cwd", "/no/such", script=f"pwd >{place}\n")

    await_end(cluster)
    assert place.read_text() == "/tmp\n"  # noqa: S108 - as LSF does


def test_a_missing_directory_ends_the_job_where_the_site_says_so(tmp_path: Path) -> None:
    with Cluster(tmp_path, conf={"LSB_EXIT_IF_CWD_NOTEXIST": "Y"}) as cluster:
        submit(cluster, "-cwd", "/no/such", script="true\n")

        (job,) = await_end(cluster)
        assert (job.status, job.exit_code, job.reason) == ("EXIT", 2, "TERM_CWD_NOTEXIST")


def test_output_is_copied_after_the_end_with_a_report_above_it_and_appended(
    cluster: Cluster,
) -> None:
    for _ in range(2):
        submit(cluster, "-J", "a[7]", "-o", "log.%I", script="echo out; echo err >&2\n")
    await_end(cluster)
    text = (cluster.folder / "log.7").read_text()

    assert text.count("Sender: LSF System") == text.count("\nout\nerr\n") == 2


def test_output_that_cannot_be_written_is_lost_and_the_job_is_done(cluster: Cluster) -> None:
    submit(cluster, "-o", "/no/such/place", script="echo out\n")

    assert [job.status for job in await_end(cluster)] == ["DONE"]


def test_j_and_i_are_replaced_in_o_e_and_i_only(cluster: Cluster) -> None:
    argv = ["-J", "a[2]", "-N", "-o", "out.%J.%I", "-e", "err.%J.%I"]
    job_id = submit(cluster, *argv, script="echo %J.%I; echo no >&2\n")

    await_end(cluster)
    assert (cluster.folder / f"out.{job_id}.2").read_text() == "%J.%I\n"
    assert (cluster.folder / f"err.{job_id}.2").read_text() == "no\n"


# Arrays


def test_an_array_is_ranges_with_steps_and_its_elements_know_who_they_are(
    cluster: Cluster,
) -> None:
    script = 'echo "$LSB_JOBID $LSB_BATCH_JID $LSB_JOBNAME $LSB_MCPU_HOSTS" >"is.$LSB_JOBINDEX"\n'
    job_id = submit(cluster, "-J", "a[1,3-4,6-10:2]", "-n", "2", script=script)

    jobs = await_end(cluster)
    assert [job.index for job in jobs] == [1, 3, 4, 6, 8, 10]
    said = (cluster.folder / "is.8").read_text()
    assert re.fullmatch(rf"{job_id} {job_id}\[8\] a\[8\] node\d+ 2\n", said)


def test_a_job_that_is_no_array_has_the_index_0(cluster: Cluster) -> None:
    submit(cluster)

    await_end(cluster)
    assert (cluster.folder / "ran.0").exists()


@pytest.mark.parametrize("argv", [["-J", "a[1-4]%1"], ["-J", "a[1-4]", "-q", "thin"]])
def test_elements_run_at_once_up_to_the_limit_of_the_array_and_of_the_queue(
    tmp_path: Path, argv: list[str]
) -> None:
    with Cluster(tmp_path, slots=4, queues={"wide": 4, "thin": 1}) as cluster:
        submit(cluster, *argv, script="sleep 0.1\n")
        jobs = await_end(cluster)

    assert all(one.ended_at <= two.started_at for one, two in pairwise(jobs))


def test_elements_share_the_slots(tmp_path: Path) -> None:
    with Cluster(tmp_path, slots=4) as cluster:
        submit(cluster, "-n", "2", "-J", "a[1-3]", script='touch "on.$LSB_JOBINDEX"; sleep 999\n')
        await_run(cluster, "on.1", "on.2")

        assert states(cluster) == ["RUN", "RUN", "PEND"]


# bjobs in both dialects


def test_json_has_strings_alone_and_an_unknown_id_is_a_record_and_exit_255(
    cluster: Cluster,
) -> None:
    job_id = str(submit(cluster, "-J", "a[1-2]", script="exit $((LSB_JOBINDEX - 1))\n"))
    await_end(cluster)
    done = call(cluster, "bjobs", "-o", FIELDS, "-json", job_id, "99")

    shared = {"JOBID": job_id, "EXIT_REASON": ""}
    assert done.returncode == 255
    assert done.stderr == "Job <99> is not found\n"
    assert json.loads(done.stdout) == {
        "COMMAND": "bjobs",
        "JOBS": 3,
        "RECORDS": [
            shared | {"JOBINDEX": "1", "STAT": "DONE", "EXIT_CODE": "", "JOB_NAME": "a[1]"},
            shared | {"JOBINDEX": "2", "STAT": "EXIT", "EXIT_CODE": "1", "JOB_NAME": "a[2]"},
            {"JOBID": "99", "ERROR": "Job <99> is not found"},
        ],
    }


@pytest.mark.parametrize("argv", [["-json"], ["-json", "-o", "jobid", "-noheader"]])
def test_json_needs_o_and_conflicts_with_noheader(cluster: Cluster, argv: list[str]) -> None:
    assert call(cluster, "bjobs", *argv).returncode == 255


def test_fields_are_chosen_with_a_delimiter_and_empty_ones_are_dashes(cluster: Cluster) -> None:
    job_id = submit(cluster, "-J", "a[5]")
    await_end(cluster)
    done = call(cluster, "bjobs", "-a", "-noheader", "-o", "jobid jobindex exit_code delimiter='^'")

    assert done.stdout == f"{job_id}^5^-\n"


def test_without_a_or_ids_only_what_has_not_ended_is_shown(cluster: Cluster) -> None:
    job_id = submit(cluster)
    await_end(cluster)
    none, by_id = call(cluster, "bjobs"), call(cluster, "bjobs", str(job_id))

    assert (none.returncode, none.stdout, none.stderr) == (0, "", "No unfinished job found\n")
    assert " DONE " in by_id.stdout


def test_none_is_exit_255_where_the_site_says_so(tmp_path: Path) -> None:
    with Cluster(tmp_path, conf={"LSB_BJOBS_CONSISTENT_EXIT_CODE": "Y"}) as cluster:
        assert call(cluster, "bjobs").returncode == 255


def test_a_name_finds_all_elements_and_a_wrong_one_is_not_found(cluster: Cluster) -> None:
    submit(cluster, "-J", "dsf-x-1[1-3]")
    submit(cluster, "-J", "dsf-x-11")
    found = call(cluster, "bjobs", "-a", "-w", "-J", "dsf-x-1").stdout
    wrong = call(cluster, "bjobs", "-a", "-w", "-J", "dsf-y")

    assert re.findall(r"dsf\S+", found) == ["dsf-x-1[1]", "dsf-x-1[2]", "dsf-x-1[3]"]
    assert (wrong.returncode, wrong.stderr) == (255, "Job <dsf-y> is not found\n")


def test_openlava_knows_neither_o_nor_json(openlava: Cluster) -> None:
    for argv in (["-json"], ["-o", "jobid"]):
        done = call(openlava, "bjobs", *argv)
        assert (done.returncode, done.stdout) == (255, "")
        assert "Usage: bjobs" in done.stderr


def test_openlava_knows_no_units_and_reads_the_limit_first(openlava: Cluster) -> None:
    limit, reservation = ["-M", "10MB"], ["-R", "rusage[mem=10MB]"]
    stock = "10MB: MEMLIMT value should be a positive integer. Job not submitted.\n"
    syntax = "Bad resource requirement syntax. Job not submitted.\n"
    for argv, text in ((limit, stock), ([*reservation, *limit], stock), (reservation, syntax)):
        done = call(openlava, "bsub", *argv, stdin="true\n")
        assert (done.returncode, done.stderr) == (255, text)
    submit(openlava, "-M", "10240", "-R", "rusage[mem=10]")


def test_openlava_shows_the_index_in_the_name_and_cuts_long_names_without_w(
    openlava: Cluster,
) -> None:
    job_id = submit(openlava, "-J", "dsf-0123456789-process-1[12]")
    await_end(openlava)
    wide = call(openlava, "bjobs", "-w", str(job_id), "99")
    narrow = call(openlava, "bjobs", "-a").stdout.splitlines()[1]

    header, row = wide.stdout.splitlines()
    assert header.split()[:3] == ["JOBID", "USER", "STAT"]
    assert row.split()[0] == str(job_id)
    assert row.split()[6] == "dsf-0123456789-process-1[12]"
    assert narrow.split()[6] == "*ess-1[12]"
    assert (wide.returncode, wide.stderr) == (255, "Job <99> is not found\n")


@pytest.mark.parametrize("dialect", ["ibm", "openlava"])
def test_ids_show_the_index_where_the_display_is_enhanced(tmp_path: Path, dialect: str) -> None:
    with Cluster(tmp_path, dialect, conf={"LSB_BJOBS_DISPLAY_ENH": "Y"}) as cluster:  # type: ignore[arg-type] # both of them
        job_id = submit(cluster, "-J", "a[7]")

        assert f"\n{job_id}[7] " in call(cluster, "bjobs", "-w", "-a").stdout


def test_what_has_finished_goes_from_bjobs_after_the_clean_period_and_stays_in_bhist(
    tmp_path: Path,
) -> None:
    with Cluster(tmp_path, clean_period_s=0.0) as cluster:
        job_id = str(submit(cluster, script="exit 3\n"))
        await_end(cluster)
        gone = call(cluster, "bjobs", job_id)
        history = call(cluster, "bhist", "-n", "0", "-l", job_id)

    assert (gone.returncode, gone.stderr) == (255, f"Job <{job_id}> is not found\n")
    assert history.stdout.startswith(f"Job <{job_id}>, ")
    assert "Exited with exit code 3." in history.stdout


def test_bhist_folds_lines_in_the_middle_of_words_and_shows_each_element(
    cluster: Cluster,
) -> None:
    submit(cluster, "-J", "dsf-a[1-2]", script="sleep 999\n")
    call(cluster, "bkill", "-J", "dsf-a")
    await_end(cluster)
    said = call(cluster, "bhist", "-n", "0", "-l", "-J", "dsf-a").stdout

    assert max(map(len, said.splitlines())) <= 79
    assert len(re.findall(r"^Job <\d+\[[12]\]>, ", said, flags=re.MULTILINE)) == 2
    assert said.replace("\n" + " " * 21, "").count("TERM_OWNER: job killed by owner;") == 2


def test_bhist_of_what_never_was_finds_no_matching_job(cluster: Cluster) -> None:
    done = call(cluster, "bhist", "-n", "0", "-l", "4242")

    assert (done.returncode, done.stderr) == (255, "No matching job found\n")


# Ends


@pytest.mark.parametrize(
    ("script", "status", "code", "reason"),
    [
        ("exit 0", "DONE", "", ""),
        ("exit 3", "EXIT", "3", ""),
        ("no-such-program", "EXIT", "127", ""),
        ("#!/no/such/shell", "EXIT", "127", ""),
        (
            "kill -KILL $$",
            "EXIT",
            "137",
            "TERM_EXTERNAL_SIGNAL: job killed by a signal external to LSF",
        ),
    ],
)
def test_an_end_is_told_by_state_exit_code_and_reason(
    cluster: Cluster, script: str, status: str, code: str, reason: str
) -> None:
    submit(cluster, script=f"{script}\n")
    await_end(cluster)
    (record,) = records(cluster)

    assert (record["STAT"], record["EXIT_CODE"], record["EXIT_REASON"]) == (status, code, reason)


def test_at_the_run_limit_comes_usr2_and_kill_later(cluster: Cluster) -> None:
    submit(cluster, "-W", "1", "-J", "mild", script="sleep 999\n")
    submit(cluster, "-W", "0:1", "-J", "deaf", script="trap '' USR2; sleep 999\n")
    mild, deaf = await_end(cluster)

    assert (mild.exit_code, mild.reason) == (140, "TERM_RUNLIMIT")
    assert (deaf.exit_code, deaf.reason) == (137, "TERM_RUNLIMIT")
    assert deaf.ended_at - deaf.started_at >= 1.1


@pytest.mark.parametrize("limit", ["40MB", "40960"])
def test_a_job_over_its_memory_limit_is_killed_with_all_its_processes(
    cluster: Cluster, limit: str
) -> None:
    fill = 'python3 -S -c "import time; kept = bytearray(90_000_000); time.sleep(999)"'
    submit(cluster, "-M", limit, script=f"{fill} &\nwait\n", PATH=python_first(cluster))
    (job,) = await_end(cluster)

    assert (job.status, job.exit_code, job.reason) == ("EXIT", 130, "TERM_MEMLIMIT")


def python_first(cluster: Cluster) -> str:
    return f"{Path(cluster.env['LSF_EMULATOR_PYTHON']).parent}:{cluster.env['PATH']}"


@pytest.mark.parametrize(("deaf_to", "code"), [("", 130), ("INT", 143), ("INT TERM", 137)])
def test_bkill_sends_int_then_term_then_kill(cluster: Cluster, deaf_to: str, code: int) -> None:
    trap = f"trap '' {deaf_to}\n" if deaf_to else ""
    # No child of the shell: one that ended well just when the signal came would hide it.
    job_id = submit(cluster, script=f"{trap}: >on; exec sleep 999\n")
    await_run(cluster, "on")
    done = call(cluster, "bkill", str(job_id))
    (job,) = await_end(cluster)

    assert done.stdout == f"Job <{job_id}> is being terminated\n"
    assert (job.status, job.exit_code, job.reason) == ("EXIT", code, "TERM_OWNER")


def test_a_job_that_ends_well_when_it_is_killed_is_done(cluster: Cluster) -> None:
    job_id = submit(cluster, script="trap 'exit 0' INT\n: >on\nsleep 9\n")
    await_run(cluster, "on")
    call(cluster, "bkill", str(job_id))

    assert [job.status for job in await_end(cluster)] == ["DONE"]


def test_bkill_takes_elements_or_all_and_one_that_has_not_begun_has_no_exit_code(
    tmp_path: Path,
) -> None:
    with Cluster(tmp_path, slots=1) as cluster:
        job_id = submit(cluster, "-J", "a[1-3]", script='touch "on.$LSB_JOBINDEX"; sleep 999\n')
        await_run(cluster, "on.1")
        assert call(cluster, "bkill", f"{job_id}[2-3]").returncode == 0

        first, *others = records(cluster)
        assert first["STAT"] == "RUN"
        assert [(r["STAT"], r["EXIT_CODE"]) for r in others] == [("EXIT", "")] * 2
        assert call(cluster, "bkill", "-J", "a").returncode == 0
        await_end(cluster)
        late = call(cluster, "bkill", str(job_id))
        assert (late.returncode, late.stderr) == (
            255,
            f"Job <{job_id}>: Job has already finished\n",
        )


def test_bkill_d_marks_a_killed_job_as_done(cluster: Cluster) -> None:
    job_id = submit(cluster, script=": >on; exec sleep 999\n")
    await_run(cluster, "on")
    call(cluster, "bkill", "-d", str(job_id))

    assert [job.status for job in await_end(cluster)] == ["DONE"]


def test_stopped_jobs_are_ususp_or_psusp_and_may_go_on(tmp_path: Path) -> None:
    with Cluster(tmp_path, slots=1) as cluster:
        job_id = submit(cluster, "-J", "a[1-2]", script=f'touch "on.$LSB_JOBINDEX"\n{AWAIT_GO}\n')
        await_run(cluster, "on.1")
        call(cluster, "bkill", "-s", "STOP", str(job_id))
        assert states(cluster) == ["USUSP", "PSUSP"]
        (tmp_path / "go").touch()
        call(cluster, "bkill", "-s", "CONT", str(job_id))

        assert [job.status for job in await_end(cluster)] == ["DONE", "DONE"]


# Trouble


def test_while_mbatchd_is_down_commands_say_so_and_wait(cluster: Cluster) -> None:
    cluster.fault("down", stream="stdout")
    with calling(cluster, "bjobs", "-a", "-o", FIELDS, "-json") as waiting:
        assert waiting.stdout
        assert waiting.stdout.readline() == "Cannot connect to LSF. Please wait ...\n"
        assert waiting.poll() is None
        cluster.mend("down")
        notices, brace, answer = waiting.stdout.read().partition("{")
        assert set(notices.splitlines()) <= {"Cannot connect to LSF. Please wait ..."}
        assert json.loads(brace + answer)["RECORDS"] == []


def test_while_mbatchd_is_down_jobs_go_on_and_none_begins(tmp_path: Path) -> None:
    with Cluster(tmp_path, slots=1) as cluster:
        submit(cluster, script=f"touch on; {AWAIT_GO}; touch over\n")
        await_run(cluster, "on")
        submit(cluster, "-J", "late")
        cluster.fault("down", mode="fail")
        failed = call(cluster, "bsub", stdin="true\n")
        (tmp_path / "go").touch()
        await_run(cluster, "over")
        until("the first had ended", lambda: cluster.jobs()[0].ended_at)

        assert (failed.returncode, failed.stdout) == (255, "")
        assert "Cannot connect to LSF" in failed.stderr
        assert [job.started_at > 0 for job in cluster.jobs()] == [True, False]
        cluster.mend("down")
        await_end(cluster)


def test_a_bsub_that_was_given_up_on_is_accepted_later(cluster: Cluster) -> None:
    cluster.fault("hung", commands=["bsub"])
    with calling(cluster, "bsub", "-J", "late", stdin="true\n") as waiting:
        until("it was heard", cluster.held, while_lives=waiting)
        assert call(cluster, "bjobs").returncode == 0
    assert cluster.jobs() == []
    cluster.mend("hung")

    assert [job.name for job in await_end(cluster)] == ["late"]


@pytest.mark.parametrize(("how", "code"), [("exit", 255), ("kill", -signal.SIGKILL)])
def test_the_reply_of_an_accepted_bsub_can_be_lost(cluster: Cluster, how: str, code: int) -> None:
    cluster.fault("reply_lost", how=how, times=1)
    lost = call(cluster, "bsub", "-J", "a", stdin="true\n")
    submit(cluster, "-J", "b")

    assert (lost.returncode, lost.stdout) == (code, "")
    assert [job.name for job in cluster.jobs()] == ["a", "b"]
    assert [call.exit_code for call in cluster.calls("bsub")] == [255 if code > 0 else None, 0]


def test_an_accepted_bsub_can_hang(cluster: Cluster) -> None:
    cluster.fault("reply_lost")
    with calling(cluster, "bsub", stdin="true\n") as waiting:
        until("the job was accepted", cluster.jobs)
        assert waiting.poll() is None


def test_one_bsub_can_be_accepted_twice(cluster: Cluster) -> None:
    cluster.fault("twice", times=1)
    said = submit(cluster, "-J", "a[1-2]")

    assert [job.job_id - said for job in cluster.jobs("a")] == [-1, -1, 0, 0]


def test_esub_may_reject_or_talk_before_the_line_on_either_stream(cluster: Cluster) -> None:
    cluster.fault("rejected", times=1)
    rejected = call(cluster, "bsub", stdin="true\n")
    cluster.fault("noise", stdout="Verifying ...\n", stderr="Job is submitted to <x> project.\n")
    noisy = call(cluster, "bsub", stdin="true\n")

    assert rejected.stderr == "Request aborted by esub. Job not submitted.\n"
    assert rejected.returncode == 255
    assert re.fullmatch(r"Verifying \.\.\.\nJob <\d+> is submitted .*\n", noisy.stdout)
    assert noisy.stderr == "Job is submitted to <x> project.\n"


def test_bjobs_can_be_empty_out_of_order_and_late_with_fresh_jobs(cluster: Cluster) -> None:
    submit(cluster, "-J", "a[1-30]", script="true\n")
    await_end(cluster)
    cluster.fault("empty", times=1)
    empty = call(cluster, "bjobs", "-a")
    cluster.fault("shuffled")
    rows = [int(record["JOBINDEX"]) for record in records(cluster)]
    cluster.fault("fresh_hidden", seconds=60)

    assert (empty.returncode, empty.stdout) == (0, "")
    assert rows != sorted(rows) == list(range(1, 31))
    assert records(cluster) == []


def test_a_job_can_be_forgotten_by_bjobs_and_bhist(cluster: Cluster) -> None:
    job_id = str(submit(cluster, "-J", "a[1-2]"))
    cluster.fault("forgotten", indices=[2])

    assert [record["JOBINDEX"] for record in records(cluster, job_id)] == ["1"]
    assert f"<{job_id}[2]>" not in call(cluster, "bhist", "-n", "0", "-l", job_id).stdout


def test_a_job_is_unkwn_while_its_host_is_lost_and_done_when_it_is_back(cluster: Cluster) -> None:
    submit(cluster, script=f"touch on; {AWAIT_GO}\n")
    await_run(cluster, "on")
    cluster.fault("unknown")
    assert states(cluster) == ["UNKWN"]
    (cluster.folder / "go").touch()
    await_end(cluster)
    assert states(cluster) == ["UNKWN"]
    cluster.mend("unknown")

    assert states(cluster) == ["DONE"]


def test_a_job_killed_while_unkwn_is_zombi_and_lives_until_its_host_is_back(
    cluster: Cluster,
) -> None:
    job_id = submit(cluster, script=": >on; exec sleep 999\n")
    await_run(cluster, "on")
    cluster.fault("unknown")
    assert call(cluster, "bkill", str(job_id)).returncode == 0
    assert states(cluster) == ["ZOMBI"]
    os.kill(cluster.jobs()[0].pid, 0)
    cluster.mend("unknown")
    await_end(cluster)

    assert states(cluster) == ["EXIT"]


def test_any_state_can_be_told_of_any_element(cluster: Cluster) -> None:
    submit(cluster, "-J", "a[1-2]", script="true\n")
    await_end(cluster)
    for status in ("PSUSP", "SSUSP", "USUSP", "WAIT", "PROV", "ZOMBI", "EXIT"):
        cluster.fault("shown", status=status, indices=[2], exit_code=9, instead_of=["DONE"])
        assert states(cluster) == ["DONE", status]


def test_a_job_that_was_killed_can_be_told_as_done(cluster: Cluster) -> None:
    submit(cluster, script="kill -9 $$\n")
    cluster.fault("shown", status="DONE", instead_of=["EXIT"])
    await_end(cluster)

    assert states(cluster) == ["DONE"]


def test_bkill_of_an_array_may_say_that_it_is_in_progress_and_do_it(cluster: Cluster) -> None:
    job_id = submit(cluster, "-J", "a[1-2]", script="sleep 999\n")
    cluster.fault("in_progress")
    done = call(cluster, "bkill", str(job_id))

    assert (done.returncode, done.stderr) == (255, f"Job <{job_id}>: Operation is in progress\n")
    assert [job.status for job in await_end(cluster)] == ["EXIT", "EXIT"]


def test_an_exit_file_can_be_seen_late(cluster: Cluster) -> None:
    cluster.fault("late_exit", seconds=0.4)
    submit(cluster, script='touch a b; mv -- a "x y.exit"; mv -- b c\n')
    await_end(cluster)

    await_run(cluster, "x y.exit")
    late, in_time = (os.stat(cluster.folder / name).st_ctime for name in ("x y.exit", "c"))
    assert late > in_time


def test_a_rerunnable_job_starts_again_under_its_id_while_the_first_goes_on(
    cluster: Cluster,
) -> None:
    job_id = submit(cluster, script='touch "ran.$$"; sleep 999\n')
    until("it ran", lambda: list(cluster.folder.glob("ran.*")))
    (first,) = cluster.jobs()
    cluster.rerun(first)
    until("it ran again", lambda: len(list(cluster.folder.glob("ran.*"))) == 2)

    (second,) = cluster.jobs()
    assert (second.job_id, second.host) != (job_id, first.host)
    os.kill(first.pid, 0)
    os.kill(second.pid, 0)


# The emulator itself


def test_calls_are_recorded_with_their_times_and_a_killed_one_has_no_end(
    cluster: Cluster,
) -> None:
    before = time.time()
    call(cluster, "bjobs", "-w", "7")
    cluster.fault("hung")
    with calling(cluster, "bhist", "7") as waiting:
        until("it asks", lambda: cluster.calls("bhist"))
        pid = waiting.pid
    (asked,), (killed,) = cluster.calls("bjobs"), cluster.calls("bhist")

    assert (asked.argv, asked.cwd, asked.exit_code) == (("-w", "7"), str(cluster.folder), 255)
    assert asked.ended_at
    assert before <= asked.started_at <= asked.ended_at <= time.time()
    assert (killed.pid, killed.ended_at, killed.exit_code) == (pid, None, None)


def test_nothing_outlives_the_cluster(tmp_path: Path) -> None:
    with Cluster(tmp_path) as cluster:
        submit(cluster, script="trap '' TERM INT\nsetsid sleep 999 &\necho $! >apart\nsleep 999\n")
        until("it runs", lambda: (tmp_path / "apart").exists() and (tmp_path / "apart").read_text())
        (job,) = cluster.jobs()

    for pid in (job.pid, int((tmp_path / "apart").read_text())):
        assert not Path(f"/proc/{pid}/cmdline").exists() or not cmdline(pid)


def cmdline(pid: int) -> bytes:
    """Empty for what is dead and not yet waited for."""
    return Path(f"/proc/{pid}/cmdline").read_bytes()


@pytest.mark.exhaustive
def test_a_thousand_elements_on_two_hundred_slots_cost_little(tmp_path: Path) -> None:
    with Cluster(tmp_path, slots=200, scheduling_delay_s=0.02) as cluster:
        submit(cluster, "-J", "a[1-1000]", script="exec sleep 0.2\n")
        until("all ended", lambda: all(job.ended_at for job in cluster.jobs()), every=0.3)

        assert len(records(cluster)) == 1000
        assert {job.status for job in cluster.jobs()} == {"DONE"}
        scheduler_s, jobs_s = cluster.cpu_seconds()
        assert scheduler_s < 10 * jobs_s, (scheduler_s, jobs_s)
