"""What many tests stand on: a clock that is moved, and a ledger in a file of its own."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from clock import MovedClock

from ds_flow.ledger import Ledger


@pytest.fixture
def clock() -> MovedClock:
    return MovedClock()


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    opened = Ledger(tmp_path / "ledger.db")
    yield opened
    opened.close()
