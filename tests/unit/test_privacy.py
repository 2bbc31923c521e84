"""Which columns are hidden from people."""

import pytest

from ds_flow.core.privacy import hides


@pytest.mark.parametrize(
    ("pattern", "column", "is_hidden"),
    [
        ("name", "name", True),
        ("name", " Name", True),
        ("last_name", "Last Name", True),
        ("LastName", "last-name", True),
        ("name", "name2", False),
        ("name", "surname", False),
        ("*name", "Sur_name", True),
        ("*birth*", "Date of Birth", True),
        ("n?me", "näme", True),
        ("prénom", "pre\u0301nom", True),  # an accent of its own, as macOS writes it
        ("pre\u0301nom", "Prénom", True),
        ("*", "anything", True),
        ("nota[1]", "nota[1]", True),
        ("!!", "name", False),
        ("!!", "!!", True),
        ("*", "", True),
        ("", "name", False),
    ],
)
def test_a_column_is_hidden_by_its_name_however_it_is_spelt(
    pattern: str, column: str, *, is_hidden: bool
) -> None:
    assert hides([pattern], column) is is_hidden
    assert hides(["other", pattern], column) is is_hidden
    assert hides([], column) is False
