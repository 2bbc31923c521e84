"""What LSF says, read: every form that is known, and no form that stops the line."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ds_flow.core.states import FailureClass, JobState
from ds_flow.dispatch.cluster import Row
from ds_flow.dispatch.lsf import texts

NAME = "dsf-0123456789-process-1of1-1-1"
HEADER = "JOBID   USER    STAT  QUEUE      FROM_HOST   EXEC_HOST   JOB_NAME   SUBMIT_TIME\n"

RECORDS = {
    "index of its own": {"JOBID": "12", "JOBINDEX": "7", "STAT": "RUN", "JOB_NAME": NAME},
    "index in the id": {"JOBID": "12[7]", "STAT": "RUN", "JOB_NAME": NAME},
    "index in the name": {"JOBID": "12", "STAT": "RUN", "JOB_NAME": f"{NAME}[7]"},
    "index 0 and in the name": {
        "JOBID": "12",
        "JOBINDEX": "0",
        "STAT": "RUN",
        "JOB_NAME": f"{NAME}[7]",
    },
}


@pytest.mark.parametrize("record", RECORDS.values(), ids=RECORDS)
def test_the_index_is_found_wherever_it_stands(record: dict[str, str]) -> None:
    text = json.dumps({"COMMAND": "bjobs", "JOBS": 1, "RECORDS": [record]})

    assert texts.rows_in_json(f"Cannot connect to LSF. Please wait ...\n{{x\n{text}\n") == [
        Row(job_id="12", index=7, state=JobState.RUNNING, status="RUN")
    ]


def test_an_unknown_id_is_no_row() -> None:
    text = json.dumps({"RECORDS": [{"JOBID": "12", "ERROR": "Job <12> is not found"}]})

    assert texts.rows_in_json(text) == []


def test_what_holds_no_document_is_none() -> None:
    assert texts.rows_in_json("LSF is down. Please wait...\n") is None


def test_the_largest_host_is_found_in_what_lshosts_lists() -> None:
    head = "HOST_NAME  type  model  cpuf ncpus maxmem maxswp server RESOURCES\n"
    hosts = "a X86 Intel 60.0 16 15.5G 4G Yes (mg)\nb X86 Intel 60.0 8 7982M - Yes ()\n"

    assert texts.largest_host_mb(f"{head}{hosts}c X86 - - - - - No ()\n") == 15872
    assert texts.largest_host_mb(head) is None
    assert texts.largest_host_mb("LSF is down. Please wait...\n") is None


ROWS = {
    "pending": f"12      ann     PEND  short     login       -       {NAME}[7] Nov  2 10:00\n",
    "running": f"12      ann     RUN   short     login     node1       {NAME}[7] Nov  2 10:00\n",
    "on slots": f"12      ann     RUN   short     login     4*node1     {NAME}[7] Nov  2 10:00\n",
    "enhanced": f"12[7]   ann     RUN   short     login     node1       {NAME}[7] Nov  2 10:00\n",
}


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_a_table_s_rows_are_those_of_the_name(row: str) -> None:
    other = row.replace(NAME, f"x{NAME}").replace("12", "13", 1)

    (found,) = texts.rows_in_table(f"Please wait\n{HEADER}{other}{row}", NAME)

    assert (found.job_id, found.index) == ("12", 7)
    assert found.state in {JobState.PENDING, JobState.RUNNING}


UNIT_REFUSED = {
    "openlava and its forks": "2048MB: MEMLIMT value should be a positive integer.",
    "spelt right": "2048MB: MEMLIMIT value should be a positive integer.",
    "without the value": "Bad MEMLIMIT.",
    "by words of their own": "-M: 2048MB is no number.",
    "in the reservation": "Bad resource requirement syntax.",
}


@pytest.mark.parametrize("said", UNIT_REFUSED.values(), ids=UNIT_REFUSED)
def test_a_unit_is_refused_by_whatever_speaks_of_the_memory_asked_for(said: str) -> None:
    assert texts.REFUSED.search(refusal := f"{said} Job not submitted.")
    assert texts.BAD_UNIT.search(refusal)


@pytest.mark.parametrize(
    "said", ["nosuch: No such queue.", "Request aborted by esub.", "Job array index too large."]
)
def test_what_does_not_speak_of_memory_refuses_no_unit(said: str) -> None:
    assert not texts.BAD_UNIT.search(f"{said} Job not submitted.")


ENDS = {
    "DONE": ("Done successfully. The CPU time used is 0.1 seconds;", JobState.SUCCEEDED, None, ""),
    "a code": ("Exited with exit code 3. The CPU time", JobState.FAILED, 3, ""),
    "a signal": ("Exited by signal 9. The CPU time", JobState.FAILED, 137, ""),
    "memory": (
        "Exited by signal 9.;\nTue: Completed <exit>; TERM_MEMLIMIT: job killed",
        JobState.FAILED,
        137,
        "TERM_MEMLIMIT",
    ),
    "before the start": (
        "Exited; TERM_OWNER: job killed by owner",
        JobState.FAILED,
        None,
        "TERM_OWNER",
    ),
    "none yet": ("Starting (Pid 77);", JobState.UNKNOWN, None, ""),
}


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
@pytest.mark.parametrize("width", [30, 57, 79])
def test_a_history_is_read_wherever_its_lines_are_folded(
    end: tuple[str, JobState, int | None, str], width: int
) -> None:
    said, state, code, term = end
    block = f"Job <12[7]>, Job Name <{NAME}[7]>, User <ann>, Project <default>\nTue: {said}\n"
    folded = "".join(fold(line, width) for line in block.splitlines())

    (row,) = texts.rows_in_history(f"{folded}\nSummary of time in seconds spent\n")

    assert (row.job_id, row.index, row.state) == ("12", 7, state)
    assert (row.exit_code, row.term) == (code, term)


def fold(line: str, width: int) -> str:
    parts = [line[start : start + width] for start in range(0, len(line), width)]
    return ("\n" + " " * 21).join(parts) + "\n"


TERMS = st.sampled_from(["", "TERM_NEW", *texts.REASONS])


@given(st.integers(0, 255), st.sampled_from(sorted(texts.STATES)), TERMS)
def test_only_exit_code_0_is_a_success_whatever_lsf_says(code: int, status: str, term: str) -> None:
    row = Row(
        job_id="1", index=1, state=texts.STATES[status], status=status, exit_code=code, term=term
    )

    assert (texts.end_with_code(code, row)[0] is None) == (code == 0)
    failure, reason = texts.end_without_code(row)
    assert failure is not None
    assert reason


def test_the_run_limit_s_signal_is_the_limit() -> None:
    row = Row(job_id="1", index=1, state=JobState.FAILED, status="EXIT", exit_code=140)

    assert texts.end_without_code(row)[0] == FailureClass.LIMIT
    assert texts.end_with_code(140, None)[0] == FailureClass.LIMIT


WORDS = st.sampled_from(
    ["Job <", ">", "[", "]", "12", "7", NAME, "RUN", "EXIT", "\n", " " * 21, "{", "}", '"RECORDS":']
)


@given(st.one_of(st.text(), st.lists(WORDS).map("".join)))
def test_no_text_stops_a_reader(text: str) -> None:
    texts.rows_in_json(text)
    texts.rows_in_table(text, NAME)
    texts.rows_in_history(text)
    texts.ids_in(text)
    texts.pending_reasons(text)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner) | st.dictionaries(st.sampled_from(["RECORDS", "JOBID", "STAT"]), inner)
    ),
    max_leaves=10,
)


@given(JSON)
def test_no_document_stops_the_reader(document: object) -> None:
    texts.rows_in_json(json.dumps({"RECORDS": document}))
    texts.rows_in_json(json.dumps(document))


PENDING = """JOBID   USER    STAT  QUEUE      FROM_HOST   EXEC_HOST   JOB_NAME   SUBMIT_TIME
7678    user1   PEND  priority   hostD                   *rilog[1]  Oct 28 13:08
 Queue's resource requirements not satisfied: 3 hosts;
 Job requirements for reserving resource (mem) not satisfied;
7678    user1   PEND  priority   hostD                   *rilog[2]  Oct 28 13:08
 Queue's resource requirements not satisfied: 3 hosts;
"""


BY_HOST = """JOBID   USER    STAT  QUEUE      FROM_HOST   EXEC_HOST   JOB_NAME   SUBMIT_TIME
7678    user1   PEND  priority   hostD                   verilog    Oct 28 13:08
 Candidate host pending reasons (0 of 4 hosts).

 Non-candidate host pending reasons (4 of 4 hosts):
   Closed by LSF administrator: 1 host;
   Load information unavailable: 1 host;
"""


def test_the_reasons_for_pending_are_told_once_each() -> None:
    assert texts.pending_reasons(PENDING) == [
        "Queue's resource requirements not satisfied: 3 hosts",
        "Job requirements for reserving resource (mem) not satisfied",
    ]
    assert texts.pending_reasons(BY_HOST) == [
        "Candidate host pending reasons (0 of 4 hosts).",
        "Non-candidate host pending reasons (4 of 4 hosts):",
        "Closed by LSF administrator: 1 host",
        "Load information unavailable: 1 host",
    ]
    assert texts.pending_reasons("No unfinished job found\n") == []
    assert texts.pending_reasons("Cannot connect to LSF. Please wait ...\n") == []


def test_of_many_or_long_reasons_for_pending_a_few_and_their_beginnings_are_kept() -> None:
    many = texts.pending_reasons("".join(f" reason {number}\n" for number in range(99)))
    (long,) = texts.pending_reasons(f" {'x' * 10**4};\n")
    assert (len(many), len(long)) == (5, 200)
