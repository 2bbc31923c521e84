"""A machine of its own on which root installs ds-flow."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
from conftest import require

from systemd_box import CHECKOUT, Box, booted, environment

INSTALL = str(CHECKOUT / "systemd" / "install.sh")
NEEDED = ("systemctl", "unshare", "nsenter", "setpriv", "useradd")


@dataclass(frozen=True, slots=True)
class Answer:
    """How a command ended, and all that it printed."""

    code: int
    text: str


@contextmanager
def machine_of_its_own() -> Iterator[Box]:
    """Boot one. Where that cannot be, the test is skipped, or fails if DS_FLOW_REQUIRE is set."""
    for program in NEEDED:
        require(program)
    if os.geteuid() != 0:
        refuse = pytest.fail if os.environ.get("DS_FLOW_REQUIRE") else pytest.skip
        refuse("only root can boot a systemd of its own")
    with booted() as made:
        yield made


def ran(box: Box, *words: str) -> Answer:
    """Run a command as root, which may fail."""
    done = subprocess.run(
        box.command(*words),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment(),
        check=False,
    )
    return Answer(done.returncode, done.stdout)
