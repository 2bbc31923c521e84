"""Power losses at moments where much is not synced yet; `make power` goes through all of them."""

from collections.abc import Iterator

import pytest

from chaos.crashpoints import stage
from chaos.drops import Journal
from chaos.powerloss import Recording, survives

MOMENTS = [
    ("metaflow fork #3", "tables"),  # all files are judged, no output is synced
    ("end link /out/manifest_RUN.json #1", "empty"),  # the commit is there, its manifest is not
]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Recording, Journal]]:
    folder = tmp_path_factory.mktemp("power")
    with pytest.MonkeyPatch.context() as patched, stage(folder) as (project, journal):
        patched.delenv("DS_FLOW_RUN__FORK", raising=False)  # the moments are those of forks
        yield Recording(project, folder / "store"), journal


@pytest.mark.parametrize(("line", "way"), MOMENTS)
@pytest.mark.exhaustive
def test_a_power_loss_costs_nothing_that_was_promised(
    recorded: tuple[Recording, Journal], line: str, way: str
) -> None:
    recording, journal = recorded
    (number,) = [n for n, step in enumerate(recording.steps) if step["line"] == line]

    assert survives(recording, journal, number, way) == []
