"""What Slurm says, read: every form that is known, and no form that stops the line."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ds_flow.core.plan import SlurmSite
from ds_flow.core.states import FailureClass, JobState
from ds_flow.dispatch import JobSpec, facts_of_slurm
from ds_flow.dispatch.cluster import Row
from ds_flow.dispatch.slurm import texts

JOB = JobSpec(key="a", command=("true",), cpus=2, memory_mb=300, limit_minutes=6.5, queue="long")


def test_what_is_asked_for_stands_on_sbatch_s_command_line() -> None:
    site = SlurmSite(account="ann", qos="night", throttle=5, extra=("--constraint", "rhel9"))

    argv = " ".join(texts.sbatch_command("dsf-x-1", 7, JOB, site))

    assert "--parsable --no-requeue --export=ALL --job-name=dsf-x-1 --array=1-7%5" in argv
    assert "--cpus-per-task=2 --mem=300M --time=7 " in argv
    assert argv.endswith("--partition=long --account=ann --qos=night --constraint rhel9")


def test_what_is_not_set_is_left_to_the_site() -> None:
    job = JobSpec(key="a", command=("true",))

    argv = " ".join(texts.sbatch_command("x", 1, job, SlurmSite()))

    assert not any(word in argv for word in ("--partition", "--account", "--qos", "%0"))


@pytest.mark.parametrize("said", ["12\n", "12;east\n", "Welcome to east\n12\n"])
def test_the_id_is_found_in_what_sbatch_prints(said: str) -> None:
    found = texts.ACCEPTED.search(said)

    assert found
    assert found[1] == "12"


QUEUE = """slurm_load: a word of the site's wrapper
12|1|COMPLETED|None|dsf-x-1
12|2|PENDING|Resources|dsf-x-1
12|3|PENDING|JobHeldUser|dsf-x-1
12|4|PENDING|(Nodes required for job are DOWN, DRAINED or reserved)|dsf-x-1
12|[5-9%2]|PENDING|Priority|dsf-x-1
13|N/A|RUNNING|None|dsf-x-1
12|10|A_WORD_OF_A_NEW_VERSION|None|dsf-x-1
12|11|OUT_OF_MEMORY|OutOfMemory|dsf-x-1
"""


def test_the_rows_of_squeue_are_those_of_single_elements() -> None:
    rows = texts.rows_in_queue(QUEUE)

    assert [(row.index, row.state) for row in rows] == [
        (1, JobState.SUCCEEDED),
        (2, JobState.PENDING),
        (3, JobState.PENDING),
        (4, JobState.PENDING),
        (10, JobState.UNKNOWN),
        (11, JobState.FAILED),
    ]
    assert [row.waits for row in rows[:4]] == [
        "",
        "Resources",
        "JobHeldUser (held by its user: scontrol release)",
        "(Nodes required for job are DOWN, DRAINED or reserved)",
    ]
    assert rows[-1].term == "OUT_OF_MEMORY"


def test_how_elements_ended_is_found_in_what_scontrol_shows() -> None:
    show = "JobId={} ArrayJobId=1 ArrayTaskId={} JobName=x UserId=ann(1) JobState={} Reason={} "
    rest = "Dependency=(null) Requeue=0 ExitCode={} RunTime=00:00:01\n"
    said = "".join(
        (show + rest).format(*of)
        for of in (
            (2, 1, "FAILED", "JobLaunchFailure", "0:9"),
            (3, 2, "FAILED", "NonZeroExitCode", "3:0"),
            (1, "3-5%2", "PENDING", "Priority", "0:0"),
            (4, 6, "RUNNING", "None", "0:0"),
        )
    )

    rows = texts.rows_of_jobs(said)

    assert [(row.index, row.exit_code) for row in rows] == [(1, 137), (2, 3), (6, None)]


def test_how_elements_ended_is_found_in_the_accounts() -> None:
    said = "1_1|CANCELLED by 7|0:15|n\n1_2|OUT_OF_MEMORY|0:125|n\n1_[3-5]|PENDING|0:0|n\n"

    rows = texts.rows_in_accounts(f"{said}7|FAILED|1:0|n\n")

    assert [(row.index, row.term) for row in rows] == [(1, "CANCELLED"), (2, "OUT_OF_MEMORY")]
    assert {row.name for row in rows} == {"n"}


def test_arrays_are_found_by_name_in_either_listing() -> None:
    assert texts.arrays_in("12\n12\n13\n") == {"12", "13"}
    assert texts.arrays_in("12_1\n12_[2-7]\n") == {"12"}
    assert texts.arrays_in("slurm_load_jobs error: Invalid user\n") == set()


def test_the_largest_host_is_found_in_what_sinfo_lists() -> None:
    assert texts.largest_host_mb("7982\n15872+\n") == 15872
    assert texts.largest_host_mb("sinfo: error\n") is None


MAY_BE_THERE = [
    "Batch job submission failed: Socket timed out on send/recv operation",
    "Batch job submission failed: Unable to contact slurm controller (connect failure)",
    "Batch job submission failed: Zero Bytes were transmitted or received",
    "Batch job submission failed: Slurm backup controller in standby mode",
    "Batch job submission failed: Protocol authentication error",
    "Slurm temporarily unable to accept job, sleeping and retrying",
    "Batch job submission failed: Transport endpoint is not connected",
]


@pytest.mark.parametrize("said", MAY_BE_THERE)
def test_after_an_error_of_the_line_a_job_may_be_there_all_the_same(said: str) -> None:
    assert texts.UNSURE.search(f"sbatch: error: {said}\n")


REFUSED = [
    "sbatch: error: Batch job submission failed: Invalid partition name specified",
    "sbatch: error: Batch job submission failed: Invalid account or account/partition specified",
    "sbatch: error: Batch job submission failed: Requested node configuration is not available",
    "sbatch: error: Batch job submission failed: Invalid job array specification",
    "sbatch: unrecognized option '--nosuch'",
    "/opt/slurm/bin/sbatch: unrecognized option '--nosuch'",
]


@pytest.mark.parametrize("said", REFUSED)
def test_after_a_refusal_it_is_certainly_not_there(said: str) -> None:
    assert texts.ERROR.search(said)
    assert not texts.UNSURE.search(said)


SAID = {
    "OverMemoryKill": ("slurmstepd-n1: error: Exceeded job memory limit", "OUT_OF_MEMORY"),
    "cgroups, 18": ("error: Detected 1 oom-kill event(s) in step 7.batch cgroup.", "OUT_OF_MEMORY"),
    "cgroups, 22": (
        "error: Detected 1 oom_kill event in StepId=7.batch. Some of the step tasks have been OOM",
        "OUT_OF_MEMORY",
    ),
    "time": ("*** JOB 7 ON n1 CANCELLED AT 2026-11-29T19:31:13 DUE TO TIME LIMIT ***", "TIMEOUT"),
    "preempted": ("JOB 7 ON n1 CANCELLED AT 2026-11-29T19:31:13 DUE TO PREEMPTION", "PREEMPTED"),
    "host": (
        "JOB 7 ON n1 CANCELLED AT 2026-11-29T19:31:13 DUE TO NODE FAILURE, SEE LOG",
        "NODE_FAIL",
    ),
    "requeued": ("JOB 7 ON n1 CANCELLED AT 2026-11-29T1:1 DUE TO JOB REQUEUE ***", "REQUEUED"),
    "by hand": ("error: *** JOB 7 ON n1 CANCELLED AT 2026-11-29T19:31:13 ***", "CANCELLED"),
    "by hand, 24": (
        "JOB 7 ON n1 CANCELLED AT 2026-11-29T1:1 DUE to SIGNAL Terminated",
        "CANCELLED",
    ),
    "nothing": ("a job's own words", ""),
}


@pytest.mark.parametrize("said", SAID.values(), ids=SAID)
def test_what_slurmstepd_adds_to_the_output_tells_the_cause(said: tuple[str, str]) -> None:
    assert texts.term_in_output(said[0]) == said[1]


def test_what_matters_of_a_site_s_configuration_is_said() -> None:
    plain = "AccountingStorageType   = accounting_storage/none\nMinJobAge               = 300 sec\n"
    version = "SLURM_VERSION           = 22.05.8\n"

    assert facts_of_slurm(plain + version) == (
        "version 22.05.8, no accounts: ends are known for 300 s"
    )
    kept = plain.replace("/none", "/slurmdbd") + version
    assert facts_of_slurm(kept) == "version 22.05.8, keeps accounts"


TERMS = st.sampled_from(["", *texts.REASONS])


@given(st.integers(0, 255), st.sampled_from(sorted(texts.STATES)), TERMS, st.booleans())
def test_only_exit_code_0_is_a_success_whatever_slurm_says(
    code: int,
    status: str,
    said: str,
    is_claimed: bool,  # noqa: FBT001 - a value of the law
) -> None:
    term = status if status in texts.REASONS else ""
    row = Row(
        job_id="1", index=1, state=texts.STATES[status], status=status, exit_code=code, term=term
    )

    assert (texts.end_with_code(code, row, said)[0] is None) == (code == 0)
    for known in (row, None):
        failure, reason = texts.end_without_code(known, said, is_claimed=is_claimed)
        assert failure is not None
        assert reason


@given(st.text())
def test_no_text_stops_the_line(text: str) -> None:
    for read in (texts.rows_in_queue, texts.rows_of_jobs, texts.rows_in_accounts):
        assert isinstance(read(text), list)
    texts.arrays_in(text)
    texts.largest_host_mb(text)
    facts_of_slurm(text)


def test_a_job_that_was_started_again_is_no_success() -> None:
    row = Row(job_id="1", index=1, state=JobState.SUCCEEDED, status="COMPLETED")

    failure, reason = texts.end_without_code(row, "", is_claimed=True)

    assert failure == FailureClass.INFRASTRUCTURE
    assert "was it started twice" in reason
