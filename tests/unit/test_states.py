"""Names and plans: laws that hold for every path and every size."""

from itertools import chain, product

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ds_flow.core.manifest import Manifest
from ds_flow.core.paths import escape, is_hostile, output_stems, unescape
from ds_flow.core.plan import (
    FILE_COST_BYTES,
    TASK_COST_BYTES,
    Options,
    Plan,
    StageOptions,
    cut_groups,
)
from ds_flow.core.states import (
    BATCH_MOVES,
    ENDED_RUNS,
    FILE_MOVES,
    LIVE_BATCHES,
    LIVE_RUNS,
    RUN_MOVES,
    BatchState,
    Cause,
    FileState,
    RunState,
    Stat,
)
from samples import manifest, planned, read, rejected

# What `os.fsdecode` can give: any bytes but "/" and NUL.
raw_names = st.binary(min_size=1, max_size=12).map(
    lambda name: name.translate(None, b"/\0").decode("utf-8", "surrogateescape") or "x"
)
tricky_names = st.text(alphabet="\\x0d\n\x7f\udcff\udc80é€ a", max_size=12)
names = raw_names | tricky_names.map(
    lambda name: name.encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape")
)
good_names = st.text(
    st.characters(exclude_categories=["Cc", "Cs"], exclude_characters="/"), min_size=1, max_size=250
)
paths = st.lists(
    st.builds("{}/{}".format, st.sampled_from(["data", "data/a", "b"]), good_names)
    | st.sampled_from(["data/a.csv", "b/a.csv", "data/a.txt", "b/.csv"]),
    unique=True,
)


@given(names)
@example("\\x41")
@example("\\\\x0a\n")
@example("\udce9t\udce9")
def test_unescaping_gives_back_what_was_escaped(raw: str) -> None:
    assert unescape(escape(raw)) == raw


@given(names, names)
@example("\n", "\\x0a")
@example("\udcff", "\\xff")
def test_no_two_paths_share_an_escaped_text(one: str, other: str) -> None:
    assert (escape(one) == escape(other)) == (one == other)


@given(names)
def test_an_escaped_path_is_plain_text_on_one_line(raw: str) -> None:
    assert not is_hostile(escape(raw))
    escape(raw).encode()


def test_an_ordinary_name_is_escaped_to_itself() -> None:
    assert escape("data/student_é 1;'-rf.csv") == "data/student_é 1;'-rf.csv"


# --------------------------------------------------------------------------- output names


@given(paths)
def test_the_files_of_a_batch_get_names_of_their_own(some: list[str]) -> None:
    stems = output_stems(map(escape, some))

    assert len(set(stems.values())) == len(some)
    for stem in stems.values():
        assert "/" not in stem
        assert len(f".processed_{stem}_1234567890123456.csv.part".encode()) <= 255


def test_a_name_that_looks_like_a_shortened_one_does_not_take_its_place() -> None:
    short = output_stems(["a/s.csv", "b/s.csv"])["a/s.csv"]

    stems = output_stems(["a/s.csv", "b/s.csv", f"{short}.csv"])

    assert len(set(stems.values())) == 3


@given(st.lists(good_names, unique=True))
def test_an_output_name_does_not_depend_on_the_order_of_the_files(some: list[str]) -> None:
    some = [escape(name) for name in some]

    assert output_stems(some) == output_stems(reversed(some))


def test_a_unique_short_stem_is_kept() -> None:
    assert output_stems(["data/student_1.csv"]) == {"data/student_1.csv": "student_1"}


def test_a_long_stem_is_cut_at_a_character_border() -> None:
    (stem,) = output_stems([f"data/{'é' * 120}.csv"]).values()

    assert stem.startswith("é" * 90 + "-")
    assert len(stem.encode()) == 189


# --------------------------------------------------------------------------- shards

MIB = 2**20
sizes = st.lists(st.integers(0, 4 * MIB) | st.integers(0, 200 * MIB), max_size=60)


@given(sizes, st.integers(1, 70), st.integers(1, 20), st.integers(1, 9))
def test_every_file_is_in_exactly_one_shard_in_order(
    sizes_bytes: list[int], shard_mb: int, max_shards: int, tasks: int
) -> None:
    files = [planned(f"f{i}", size) for i, size in enumerate(sizes_bytes)]

    groups = cut_groups(files, options(shard_mb, max_shards), tasks)
    shards = [shard for group in groups for shard in group]

    assert [file for shard in shards for file in shard] == files
    assert all(shards)
    assert all(groups)
    assert len(shards) <= max_shards
    assert len(groups) <= tasks
    assert bool(shards) == bool(files)


@given(sizes, st.integers(1, 9))
def test_no_shard_is_over_its_size_by_more_than_a_file(sizes_bytes: list[int], tasks: int) -> None:
    files = [planned(f"f{i}", size) for i, size in enumerate(sizes_bytes)]

    for shard in chain.from_iterable(cut_groups(files, options(64, 1000), tasks)):
        most = 64 * MIB + max(file.size_bytes for file in shard) + FILE_COST_BYTES
        assert sum(file.size_bytes for file in shard) <= most


@given(sizes, st.integers(2, 9))
def test_no_task_has_more_than_a_file_above_its_share(sizes_bytes: list[int], tasks: int) -> None:
    files = [planned(f"f{i}", size) for i, size in enumerate(sizes_bytes)]
    costs = [
        sum(file.size_bytes + FILE_COST_BYTES for shard in group for file in shard)
        for group in cut_groups(files, options(64, 1000), tasks)
    ]

    largest = max(sizes_bytes, default=0) + FILE_COST_BYTES
    parts = min(tasks, -(-sum(costs) // TASK_COST_BYTES))
    assert all(cost <= sum(costs) / parts + largest for cost in costs)


@pytest.mark.parametrize(
    ("sizes_bytes", "groups"),
    [
        ([100] * 10_000, [[1000] * 5, [1000] * 5]),
        ([100] * 1000, [[500], [500]]),
        ([100] * 200, [[200]]),  # done before another task has begun
        ([20 * MIB] * 10, [[2, 3], [2, 3]]),
        ([200 * MIB, 1], [[1], [1]]),
    ],
    ids=["many", "some", "few", "large", "uneven"],
)
def test_work_is_shared_evenly_among_the_tasks(
    sizes_bytes: list[int], groups: list[list[int]]
) -> None:
    files = [planned(f"f{i}", size) for i, size in enumerate(sizes_bytes)]

    cut = cut_groups(files, options(), 2)

    assert [[len(shard) for shard in group] for group in cut] == groups


def test_a_shard_may_hold_less_than_a_mebibyte() -> None:
    files = [planned(f"f{i}", 2**18) for i in range(4)]

    (shards,) = cut_groups(files, options(shard_mb=0.32), 1)

    assert [len(shard) for shard in shards] == [1] * 4


def options(shard_mb: float = 64, max_shards: int = 64) -> Options:
    return Options(
        project_name="sample",
        root="/project",
        output_dir="/project/out",
        log_dir="/project/log",
        shard_mb=shard_mb,
        max_shards=max_shards,
        stages={"analyze": StageOptions(command=("wc", "-l"))},
    )


# --------------------------------------------------------------------------- moves


def test_every_state_says_where_it_may_go() -> None:
    assert FILE_MOVES.keys() == set(FileState)
    assert BATCH_MOVES.keys() == set(BatchState)
    assert RUN_MOVES.keys() == set(RunState)


def test_what_is_published_is_so_for_ever() -> None:
    assert not FILE_MOVES[FileState.PROCESSED]
    assert not BATCH_MOVES[BatchState.SUCCEEDED]
    assert not RUN_MOVES[RunState.SUCCEEDED]


@pytest.mark.parametrize(
    ("old", "new"), sorted(product(set(BatchState) - set(LIVE_BATCHES), BatchState))
)
def test_only_a_commit_moves_an_ended_batch(old: BatchState, new: BatchState) -> None:
    assert new not in BATCH_MOVES[old] or new == BatchState.SUCCEEDED


@pytest.mark.parametrize(("old", "new"), sorted(product(ENDED_RUNS, RunState)))
def test_only_a_commit_moves_an_ended_run(old: RunState, new: RunState) -> None:
    assert new not in RUN_MOVES[old] or new == RunState.SUCCEEDED
    assert {*LIVE_RUNS, *ENDED_RUNS} == set(RunState)


# --------------------------------------------------------------------------- as JSON


def test_a_plan_reads_what_it_wrote() -> None:
    plan = Plan(
        batch="0123456789",
        trigger="arrival",
        formed_at="now",
        files=(planned("data/a.csv"),),
        options=options(),
    )

    assert Plan.from_json(plan.to_json()) == plan


def test_a_manifest_reads_what_it_wrote() -> None:
    whole = manifest(inputs=[read("a", "1")], rejects=[rejected("b", Cause.GONE)])

    assert Manifest.from_json(whole.to_json()) == whole


@given(st.builds(Stat, *[st.integers(0, 2**63)] * 5))
def test_a_stat_is_written_as_its_five_numbers(stat: Stat) -> None:
    assert tuple(map(int, str(stat).split())) == stat
