"""Which files have finished arriving: laws over any sequence of looks."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from ds_flow.core.settling import holds_up, split_settled
from ds_flow.core.states import Arrival, Sighting, Stat

QUIET_S = 5.0

stats = st.builds(Stat, *[st.integers(0, 1)] * 5)
looks = st.lists(st.tuples(st.dictionaries(st.sampled_from("abc"), stats), st.floats(0, 10)))
Looks = list[tuple[dict[str, Stat], float]]


def sightings(seen: dict[str, Stat]) -> list[Sighting]:
    return [Sighting(path, stat) for path, stat in seen.items()]


@given(st.dictionaries(st.text(), stats), st.floats(0, 1e9))
def test_one_look_settles_nothing(seen: dict[str, Stat], now_s: float) -> None:
    still, settled = split_settled({}, sightings(seen), now_s, quiet_s=0)

    assert not settled
    assert still.keys() == seen.keys()


@given(looks)
def test_what_settles_was_seen_alike_for_the_whole_quiet_time(looks: Looks) -> None:
    arriving: dict[str, Arrival] = {}
    unchanged: dict[str, tuple[Stat, float]] = {}
    now_s = 0.0
    for seen, pause_s in looks:
        now_s += pause_s
        unchanged = {
            path: before if (before := unchanged.get(path)) and before[0] == stat else (stat, now_s)
            for path, stat in seen.items()
        }
        was = arriving
        arriving, settled = split_settled(arriving, sightings(seen), now_s, QUIET_S)
        due = {path for path in was if path in seen and now_s - unchanged[path][1] >= QUIET_S}
        assert {arrival.sighting.path for arrival in settled} == due
        for path in due:
            del unchanged[path]


@given(looks, st.floats(0, 10))
def test_every_sighting_is_either_arriving_or_settled(looks: Looks, quiet_s: float) -> None:
    arriving: dict[str, Arrival] = {}
    for number, (seen, _) in enumerate(looks):
        arriving, settled = split_settled(arriving, sightings(seen), float(number), quiet_s)
        assert [*seen] == sorted(
            [*arriving, *(a.sighting.path for a in settled)], key=[*seen].index
        )


@given(stats, stats)
def test_any_change_starts_the_quiet_time_anew(one: Stat, other: Stat) -> None:
    arriving, _ = split_settled({}, [Sighting("a", one)], 0, QUIET_S)
    arriving, settled = split_settled(arriving, [Sighting("a", other)], QUIET_S, QUIET_S)

    assert bool(settled) == (one == other)
    if one != other:
        assert arriving["a"].unchanged_since_s == QUIET_S


@given(stats)
def test_a_file_that_goes_is_forgotten(stat: Stat) -> None:
    arriving, _ = split_settled({}, [Sighting("a", stat)], 0, QUIET_S)
    arriving, _ = split_settled(arriving, [], 1, QUIET_S)
    arriving, settled = split_settled(arriving, [Sighting("a", stat)], QUIET_S, QUIET_S)

    assert not settled
    assert arriving["a"].unchanged_since_s == QUIET_S


@given(st.integers(-(2**62), 2**62), st.integers(-(2**62), 2**62))
def test_the_times_of_a_file_say_nothing_of_its_age(mtime_ns: int, ctime_ns: int) -> None:
    seen = Sighting("a", Stat(1, 1, 1, mtime_ns, ctime_ns))
    arriving, _ = split_settled({}, [seen], 100, QUIET_S)

    assert not split_settled(arriving, [seen], 100 + QUIET_S - 0.01, QUIET_S)[1]
    assert split_settled(arriving, [seen], 100 + QUIET_S, QUIET_S)[1] == [Arrival(seen, 100)]


def test_why_a_file_is_still_arriving_is_kept_while_it_does_not_change() -> None:
    held = Arrival(Sighting("a", Stat(1, 1, 1, 1, 1)), 0, "open for writing")

    assert split_settled({"a": held}, [held.sighting], 1, QUIET_S) == ({"a": held}, [])


@given(st.floats(0, 100), st.floats(0, 100))
def test_a_batch_waits_for_a_file_that_will_settle_and_not_for_one_that_is_written_for_long(
    patience_s: float, written_s: float
) -> None:
    arrival = Arrival(Sighting("a", Stat(1, 1, 1, 1, 1)), written_s)

    assert holds_up(arrival, 0, patience_s) == (written_s <= patience_s)
    assert not holds_up(replace(arrival, is_settling=False), 0, patience_s)
