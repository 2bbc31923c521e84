"""Which waiting files make a batch now."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from ds_flow.core.batching import Ages, Limits, Waiting, batches_to_form, seconds_until_due

LIMITS = Limits(quiet_s=1, max_wait_s=30, max_files=3, max_bytes=100)

waiting_files = st.lists(st.integers(0, 120), max_size=20).map(
    lambda sizes: [Waiting(number, size) for number, size in enumerate(sizes)]
)
ages = st.floats(0, 60)


def is_full(group: list[Waiting]) -> bool:
    return len(group) >= LIMITS.max_files or sum(f.size_bytes for f in group) >= LIMITS.max_bytes


@given(waiting_files, st.floats(30, 1e6))
def test_an_overdue_inbox_leaves_nothing_behind(files: list[Waiting], oldest_age_s: float) -> None:
    groups = batches_to_form(files, Ages(0, oldest_age_s), LIMITS)

    assert [file for group in groups for file in group] == files


@given(waiting_files, st.floats(1, 1e6))
def test_a_quiet_inbox_leaves_nothing_behind(files: list[Waiting], newest_age_s: float) -> None:
    groups = batches_to_form(files, Ages(newest_age_s, 2), LIMITS)

    assert [file for group in groups for file in group] == files


@given(waiting_files, ages, ages)
def test_a_batch_is_never_empty_and_ends_with_the_file_that_fills_it(
    files: list[Waiting], newest_age_s: float, oldest_age_s: float
) -> None:
    for group in batches_to_form(files, Ages(newest_age_s, oldest_age_s), LIMITS):
        assert group
        assert not is_full(group[:-1])


@given(waiting_files)
def test_while_files_still_come_only_full_batches_are_due(files: list[Waiting]) -> None:
    groups = batches_to_form(files, Ages(0.9, 29), LIMITS)
    taken = [file for group in groups for file in group]

    assert all(is_full(group) for group in groups)
    assert taken == files[: len(taken)]
    assert not is_full(files[len(taken) :])


class Counted(Waiting):
    """Counts how often it is asked for its size."""

    asked = 0

    def __getattribute__(self, name: str) -> object:
        Counted.asked += name == "size_bytes"
        return super().__getattribute__(name)


def test_each_file_is_weighed_once_however_many_wait() -> None:
    limits = replace(LIMITS, max_files=1000)
    files = [Counted(number, 0) for number in range(500)]
    assert batches_to_form(files, Ages(0, 0), limits) == []
    assert Counted.asked == len(files)


@given(waiting_files, ages, ages)
def test_no_file_is_in_two_batches(
    files: list[Waiting], newest_age_s: float, oldest_age_s: float
) -> None:
    groups = batches_to_form(files, Ages(newest_age_s, oldest_age_s), LIMITS)
    taken = [file.id for group in groups for file in group]

    assert len(taken) == len(set(taken))


@given(waiting_files.filter(bool), ages, ages)
def test_after_the_time_to_wait_everything_is_due(
    files: list[Waiting], newest_age_s: float, oldest_age_s: float
) -> None:
    wait_s = seconds_until_due(Ages(newest_age_s, oldest_age_s), LIMITS)
    later_s = wait_s + 1e-6  # of rounding

    groups = batches_to_form(files, Ages(newest_age_s + later_s, oldest_age_s + later_s), LIMITS)

    assert sum(map(len, groups)) == len(files)
    assert 0 <= wait_s <= LIMITS.quiet_s


@given(waiting_files, ages, st.floats(0, 29))
def test_while_a_file_settles_only_full_batches_are_due_until_the_oldest_has_waited_for_long(
    files: list[Waiting], newest_s: float, oldest_s: float
) -> None:
    groups = batches_to_form(files, Ages(newest_s, oldest_s, is_settling=True), LIMITS)
    assert all(is_full(group) for group in groups)

    wait_s = seconds_until_due(Ages(newest_s, oldest_s, is_settling=True), LIMITS)
    later = Ages(newest_s + wait_s, oldest_s + wait_s + 1e-6, is_settling=True)
    assert sum(map(len, batches_to_form(files, later, LIMITS))) == len(files)
