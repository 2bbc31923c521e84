"""How markers are named."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ds_flow.core.markers import Marker

names = st.text(st.characters(exclude_characters="/\0", codec="utf-8"), min_size=1)
markers = st.sampled_from(["{name}.done", "{stem}.ok", ".{name}", "ready-{stem}", "_SUCCESS"])


@pytest.mark.parametrize(
    ("text", "marker"),
    [
        ("{name}.done", "student_1.csv.done"),
        ("{stem}.ok", "student_1.ok"),
        (".{name}.ready", ".student_1.csv.ready"),
        ("_SUCCESS", "_SUCCESS"),
    ],
)
def test_a_marker_is_named_after_its_file_or_not_at_all(text: str, marker: str) -> None:
    assert Marker.parse(text).of("student_1.csv") == marker


@pytest.mark.parametrize(
    "text", ["{name}", "{stem}", "a/{name}.done", "..", "{nam}.done", "{name}{name}", "{name}.{x}"]
)
def test_what_names_no_marker_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="should"):
        Marker.parse(text)


@given(names, markers)
def test_the_marker_of_a_file_is_one_whatever_the_file_is_named(name: str, text: str) -> None:
    assert Marker.parse(text).fits(Marker.parse(text).of(name))


@given(names, markers)
def test_the_file_of_a_marker_is_among_those_that_it_spans(name: str, text: str) -> None:
    first, last = Marker.parse(text).span(Marker.parse(text).of(f"{name}.csv"))
    assert first <= f"{name}.csv" < last


@given(names)
def test_a_file_without_the_ending_of_markers_is_none(name: str) -> None:
    assert not Marker.parse("{name}.done").fits(f"{name}.csv")
