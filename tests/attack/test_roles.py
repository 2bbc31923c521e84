"""Who can read and write what of an installed service: each tries, under a real systemd."""

import json
import re
import secrets
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from installed import INSTALL, machine_of_its_own, ran
from project import ids, table, until
from systemd_box import CHECKOUT, Box

ROOT = "/opt/ds-flow"
PYTHON = f"{ROOT}/.venv/bin/python"
TOLD = {"a secret": secrets.token_hex(8), "a cell": secrets.token_hex(8)}  # looked for everywhere
SETTINGS = """
project_name: boxed
paths: {input_pattern: data/student_*.csv, output_dir: out, log_dir: log}
watch: {quiet_seconds: 0.2, rescan_seconds: 1}
batch: {quiet_seconds: 0.2}
alerts: {command: ["true"], every_minutes: 1}
"""
BAD = f"id,a\n{TOLD['a cell']},1,2,3\n"

USERS = {"olga": "ds-flow", "alice": "ds-flow-drop", "bob": "ds-flow-drop", "otto": ""}
ROLES = {"the service": "", "an operator": "olga", "a dropper": "alice", "others": "otto"}

# What the table of SECURITY.md names, and where that is.
PLACES = {
    "the code": ("daemon", "flows/student_flow.py", "bash/run_job.sh", ".venv/bin", "README.md"),
    "`config/settings.yaml`": ("config/settings.yaml",),
    "`.env`": (".env",),
    "`data/`": ("data",),
    "a dropper's own file in `data/`": ("data/student_alice.csv",),
    "another dropper's file in `data/`": ("data/student_bob.csv",),
    "`out/`": ("out",),
    "what was published": ("out/final_combined_*.csv", "out/processed_*.csv", "out/*_*.json"),
    "`out/.work/`": ("out/.work", "out/.work/project.json"),
    "the ledger": ("out/ledger.db", "out/ledger.db.lock"),
    "`log/`": ("log",),
    "the logs": ("log/ds-flow.log", "log/run_*.log"),
    "`.metaflow/`": (".metaflow",),
    "Metaflow's records": (".metaflow/StudentDataFlow/*/*/*/0.data.json",),
    "the journal": ("/run/log/journal/*/system.journal",),
}
TRY = """
import json, os, sys

def may(path):
    said = [word for word, does in (("read", read), ("write", write)) if tried(does, path)]
    return " and ".join(said) or "-"

def tried(does, path):
    try:
        does(path)
    except OSError:
        return False
    return True

def read(path):
    if os.path.isdir(path):
        os.listdir(path)
    else:
        with open(path, "rb") as file:
            file.read(1)

def write(path):
    if os.path.isdir(path):
        name = f"{path}/.tried"
        os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        os.unlink(name)
    else:
        os.close(os.open(path, os.O_WRONLY))

print("tried", json.dumps({path: may(path) for path in sys.argv[1:]}))
"""


@pytest.fixture(scope="module")
def box() -> Iterator[Box]:
    """The service, with a good file of each of two droppers and a bad one, all done with."""
    with machine_of_its_own() as made:
        made.run(INSTALL, "install", ROOT)
        for user, group in USERS.items():
            made.run("useradd", "--no-create-home", f"--groups={group}", user)
        made.path(f"{ROOT}/config/settings.yaml").write_text(SETTINGS)
        made.path(f"{ROOT}/.env").write_text(f"TEAM_TOKEN={TOLD['a secret']}\n")
        made.path("/usr/local/lib/try.py").write_text(TRY)
        made.run("systemctl", "start", "ds-flow")
        for user in ("alice", "bob"):
            drop(made, user, f"student_{user}.csv", table(user))
        drop(made, "alice", "student_bad.csv", BAD)
        wait_published(made, "alice", "bob")
        until("the bad one was set aside", lambda: "1 quarantined" in status_text(made))
        yield made


def as_user(user: str) -> tuple[str, ...]:
    return ("setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups", "--")


def drop(box: Box, user: str, name: str, text: str, mask: str = "022") -> None:
    """Put a whole file into the inbox, as that user does."""
    put = f"umask {mask}; cd {ROOT}/data; cat >.{name}; mv .{name} {name}"
    box.run(*as_user(user), "bash", "-c", put, stdin=text)


def find(box: Box, pattern: str) -> list[Path]:
    top = box.path("" if pattern.startswith("/") else f"{ROOT}/")
    return sorted(top.glob(pattern.removeprefix("/")))


def wait_published(box: Box, *names: str) -> None:
    for name in names:
        pattern = f"out/processed_student_{name}_*.csv"
        until(f"{name} was published", partial(find, box, pattern))
    until("it was recorded", lambda: "runs live: 0" in status_text(box))


def status_text(box: Box) -> str:
    return box.run("systemctl", "show", "--property=StatusText", "--value", "ds-flow")


def published_ids(box: Box, name: str) -> list[str]:
    (path,) = find(box, f"out/processed_student_{name}_*.csv")
    return [line.partition(",")[0] for line in path.read_text().splitlines()[1:]]


def measured(box: Box, user: str, paths: list[str]) -> dict[str, str]:
    """What a user can do with each path: "" is the service, within what its unit allows."""
    words = [PYTHON, "-I", "/usr/local/lib/try.py", *paths]
    said = box.run(*as_user(user), *words) if user else said_in_unit(box, words)
    (line,) = [line for line in said.splitlines() if line.startswith("tried ")]
    found: dict[str, str] = json.loads(line.removeprefix("tried "))
    return found


def said_in_unit(box: Box, words: list[str]) -> str:
    """Run a program in place of the daemon."""
    system = box.path("/etc/systemd/system")
    unit = re.sub(
        "(?m)^(Type|Exec|Watchdog|Restart).*", "", (system / "ds-flow.service").read_text()
    )
    run = f"Type=oneshot\nExecStart={' '.join(words)}\n"
    (system / "try.service").write_text(f"{unit}\n[Service]\n{run}")
    box.run("systemctl", "daemon-reload")
    box.run("systemctl", "start", "try")
    box.run("journalctl", "--sync")
    return box.run("journalctl", "--unit=try", "--output=cat")


@pytest.mark.exhaustive
def test_the_table_of_who_can_read_and_write_what_is_what_each_has_tried(box: Box) -> None:
    paths = {
        place: [found for pattern in patterns for found in named(box, pattern)]
        for place, patterns in PLACES.items()
    }
    every = [path for found in paths.values() for path in found]
    by_role = {role: measured(box, user, every) for role, user in ROLES.items()}

    rows = [
        [place, *("/".join({may[path]: "" for path in found}) for may in by_role.values())]
        for place, found in paths.items()
    ]

    header = [["", *ROLES], ["---"] * (len(ROLES) + 1)]
    text = "\n".join(f"| {' | '.join(row)} |".replace("|  |", "| |") for row in header + rows)
    assert text in (CHECKOUT / "SECURITY.md").read_text(encoding="utf-8"), f"measured:\n{text}"


def named(box: Box, pattern: str) -> list[str]:
    found = [f"/{path.relative_to(box.path('/'))}" for path in find(box, pattern)]
    assert found, pattern
    return found


def test_no_dropper_can_remove_replace_or_change_what_another_has_dropped(box: Box) -> None:
    theirs = f"{ROOT}/data/student_bob.csv"
    for attempt in (
        f"rm -f {theirs}",
        f"mv {theirs} {ROOT}/data/student_gone.csv",
        f"echo mine >{ROOT}/data/mine.csv; mv -f {ROOT}/data/mine.csv {theirs}",
        f"echo mine >>{theirs}",
        f"chmod a+rw {theirs}",
        f"cat {theirs}",
        f"ln {theirs} {ROOT}/data/student_linked.csv",
    ):
        assert ran(box, *as_user("alice"), "bash", "-c", attempt).code != 0, attempt

    assert box.path(theirs).read_text() == table("bob")


@pytest.mark.parametrize("mask", ["000", "002", "027", "077"])
def test_a_file_is_read_whatever_its_droppers_umask_is_and_by_no_other_dropper(
    box: Box, mask: str
) -> None:
    drop(box, "alice", f"student_masked{mask}.csv", table(f"masked{mask}"), mask)

    wait_published(box, f"masked{mask}")

    path = f"{ROOT}/data/student_masked{mask}.csv"
    assert measured(box, "bob", [path]) == {path: "-"}
    assert published_ids(box, f"masked{mask}") == ids(f"masked{mask}")


def test_a_file_in_a_folder_that_a_dropper_has_made_is_as_private(box: Box) -> None:
    folder = f"{ROOT}/data/of_alice"
    put = f"umask 002; mkdir {folder}; echo a >{folder}/student_a.csv"
    box.run(*as_user("alice"), "bash", "-c", put)

    path = f"{folder}/student_a.csv"
    assert measured(box, "bob", [folder, path]) == {folder: "-", path: "-"}
    assert measured(box, "olga", [folder, path]) == {folder: "read", path: "read"}


@pytest.mark.exhaustive
def test_a_file_whose_mode_keeps_the_service_out_is_set_aside_with_what_to_do(box: Box) -> None:
    source, name = "/var/tmp/student_kept.csv", "data/student_kept.csv"  # noqa: S108
    box.run(*as_user("alice"), "bash", "-c", f"umask 077; cat >{source}", stdin=table("kept"))
    box.run(*as_user("alice"), "cp", "-p", source, f"{ROOT}/data/")
    drop(box, "bob", "student_beside.csv", table("beside"))

    wait_published(box, "beside")
    until("it was set aside", lambda: "2 quarantined" in status_text(box))
    said = box.run(*as_user("ds-flow"), f"{ROOT}/.venv/bin/ds-flow", "explain", name)
    assert "it belongs to alice and its mode is 600" in said
    assert f"chmod a+r {ROOT}/{name}" in said

    box.run(*as_user("alice"), "chmod", "a+r", f"{ROOT}/{name}")
    wait_published(box, "kept")
    assert published_ids(box, "kept") == ids("kept")


@pytest.mark.parametrize("user", ["bob", "otto"])
@pytest.mark.parametrize("what", TOLD)
@pytest.mark.exhaustive
def test_nothing_that_others_can_read_quotes_a_secret_or_an_input(
    box: Box, user: str, what: str
) -> None:
    text = TOLD[what]
    everywhere = f"{ROOT} /run /var /dev/shm /etc"
    names = f"find {everywhere} -newer /etc/machine-id -type f -readable -print0"
    look = f"{{ {names} | xargs -0 grep -l {text}; }} 2>/dev/null"

    found = ran(box, *as_user(user), "bash", "-c", look)
    known = ran(box, "bash", "-c", look)

    assert found.text == ""
    assert f"{ROOT}/" in known.text  # root finds it
    for words in (("status", "--full"), ("show",)):
        assert text not in ran(box, *as_user(user), "systemctl", *words, "ds-flow").text


def test_a_core_holds_nothing_and_the_unit_is_closed(box: Box) -> None:
    assert box.run("systemctl", "show", "--property=LimitCORE", "--value", "ds-flow") == "0"
    said = box.run("systemd-analyze", "security", "--no-pager", "ds-flow", check=False)
    (exposure,) = re.findall(r"Overall exposure level for ds-flow.service: ([0-9.]+)", said)
    assert float(exposure) <= 1.0
