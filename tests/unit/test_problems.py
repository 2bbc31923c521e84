"""Problems that are told once until they change, and waited for ever longer."""

from ds_flow.core.problems import LONGEST_WAIT_SECONDS, Problems, Quota


def test_a_problem_is_news_until_it_is_known_and_again_when_it_changes() -> None:
    problems = Problems()

    assert problems.report("admit", "the disk is full")
    assert not problems.report("admit", "the disk is full")
    assert problems.report("form", "the disk is full")
    assert problems.report("admit", "the ledger is locked")
    assert list(problems) == ["the ledger is locked", "the disk is full"]


def test_each_report_doubles_the_wait_up_to_half_a_minute() -> None:
    problems, now_s, waits = Problems(), 100.0, []
    for _ in range(8):
        problems.report("admit", "why", now_s)
        waits.append(next(s for s in range(1, 100) if not problems.must_wait("admit", now_s + s)))
        now_s += waits[-1]

    assert waits == [1, 2, 4, 8, 16, 30, 30, LONGEST_WAIT_SECONDS]


def test_a_subject_that_need_not_wait_keeps_its_problem() -> None:
    problems = Problems()
    problems.report("admit", "why", 0.0)
    assert problems.has_waits

    problems.end_wait("admit")

    assert not problems.must_wait("admit", 0.0)
    assert not problems.has_waits
    assert not problems.report("admit", "why", 0.0)
    assert problems.must_wait("admit", 0.9)
    assert not problems.must_wait("admit", 1.0)


def test_what_is_solved_or_not_kept_is_forgotten() -> None:
    problems = Problems()
    for subject in "abc":
        problems.report(subject, f"why {subject}")

    assert problems.solve("a")
    assert not problems.solve("a")
    problems.keep({"c"})

    assert "b" not in problems
    assert list(problems) == ["why c"]
    assert problems.report("a", "why a")


def test_names_are_counted_for_each_kind_and_a_new_period_tells_what_the_last_one_left() -> None:
    quota = Quota(2, 60)

    assert [quota.count("a", at) for at in (0, 1, 2, 3)] == [(1, 0), (2, 0), (3, 0), (4, 0)]
    assert quota.count("b", 4) == (1, 0)
    assert quota.count("a", 60) == (1, 2)
    assert quota.count("a", 61) == (2, 0)
    assert quota.count("a", 10) == (1, 0)  # the clock was set back
