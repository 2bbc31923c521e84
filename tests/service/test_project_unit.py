"""The shipped unit on a project that `ds-flow init` has made, by the text of docs/projects.md."""

import re
from collections.abc import Iterator

import pytest

from installed import INSTALL, machine_of_its_own
from project import ids, table, until
from systemd_box import CHECKOUT, Box

PAGE = (CHECKOUT / "docs" / "projects.md").read_text()
PROJECT = "/srv/marks"
DROP_IN = "/etc/systemd/system/ds-flow-marks.service.d"


@pytest.fixture(scope="module")
def box() -> Iterator[Box]:
    with machine_of_its_own() as made:
        yield made


def block(first: str) -> str:
    """The indented lines of the page that begin with this one."""
    found = re.search(rf"^    {re.escape(first)}.*?(?=^\S|\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert found is not None
    return re.sub("^    ", "", found[0], flags=re.MULTILINE)


@pytest.mark.exhaustive
def test_the_unit_serves_a_project_elsewhere_as_another_user(box: Box) -> None:
    box.run(INSTALL, "install", "/opt/ds-flow")
    box.run("/opt/ds-flow/.venv/bin/ds-flow", "init", PROJECT)
    commands, _, rest = block("useradd").partition("systemctl edit ds-flow-marks\n")
    drop_in, _, last = rest.partition("systemctl enable")
    box.run("bash", "-euc", commands)
    box.path(DROP_IN).mkdir()
    box.path(f"{DROP_IN}/override.conf").write_text(drop_in)
    box.run("systemctl", "daemon-reload")

    box.run("bash", "-euc", f"systemctl enable {last.splitlines()[0]}")
    box.path(f"{PROJECT}/data/student_a.csv").write_text(table("a"))

    out = box.path(f"{PROJECT}/out")
    until("it was published", lambda: [*out.glob("final_combined_*.csv")])
    (combined,) = out.glob("final_combined_*.csv")
    rows = combined.read_text().splitlines()[1:]
    assert [row.partition(",")[0] for row in rows] == ids("a")
    assert box.run("stat", "--format=%U", f"{PROJECT}/out/{combined.name}") == "marks"
    assert box.run("systemctl", "is-active", "ds-flow-marks") == "active"
