"""`make install` where somebody else has prepared something: root neither writes nor runs it."""

from collections.abc import Iterator

import pytest

from installed import INSTALL, machine_of_its_own, ran
from systemd_box import CHECKOUT, Box

ATTACKER = "mallory"
ROOT = "/srv/site/ds-flow"
VICTIM, PWNED = "/etc/victim", "/var/pwned"
UNIT = "/etc/systemd/system/ds-flow.service"
PAGE = "/etc/systemd/system/ds-flow-web.service"
SHA256SUM = "/usr/bin/sha256sum"

PLANT = f"printf '#!/bin/sh\\ntouch {PWNED}\\n' >"
AS_ATTACKER = f"setpriv --reuid={ATTACKER} --regid={ATTACKER} --clear-groups --"

PYTHON_OF_HIS = f"""
mkdir -p {ROOT}/.venv/bin
touch {ROOT}/.venv/pyvenv.cfg
{PLANT} {ROOT}/.venv/bin/python
chmod 755 {ROOT}/.venv/bin/python
chown {ATTACKER} {ROOT}/.venv/bin/python
"""
LINKED_PYTHON = f"""
mkdir -p {ROOT}/.venv/bin
{PLANT} /srv/python
chmod 755 /srv/python
ln -s /srv/python {ROOT}/.venv/bin/python
chown -h {ATTACKER} {ROOT}/.venv/bin/python
"""

# Each prepares the prefix; the first word of the answer is the path that is to be named.
PREPARED = {
    "a prefix of his": (f"mkdir {ROOT}; chown {ATTACKER}: {ROOT}", ROOT),
    "a prefix that all may write to": (f"mkdir -m 777 {ROOT}", ROOT),
    "a prefix that his group may write to": (
        f"mkdir {ROOT}; chgrp {ATTACKER} {ROOT}; chmod 2775 {ROOT}",
        ROOT,
    ),
    "a parent of his": (f"mkdir {ROOT}; chown {ATTACKER} /srv/site", "/srv/site"),
    "a parent that all may write to": (f"mkdir {ROOT}; chmod 1777 /srv/site", "/srv/site"),
    "a parent of his, and no prefix yet": (f"chown {ATTACKER} /srv/site", "/srv/site"),
    "a prefix that is a link": (f"mkdir /srv/his; ln -s /srv/his {ROOT}", "PREFIX=/srv/his"),
    "a parent that is a link": (
        "mkdir -p /srv/his/ds-flow; rmdir /srv/site; ln -s /srv/his /srv/site",
        "PREFIX=/srv/his/ds-flow",
    ),
    "a list that is a link": (f"mkdir {ROOT}; ln -s {VICTIM} {ROOT}/.installed", ".installed"),
    "a list that is a link of his": (
        f"mkdir {ROOT}; ln -s {VICTIM} {ROOT}/.installed; chown -h {ATTACKER} {ROOT}/.installed",
        ".installed",
    ),
    "a list that is another name of a file": (
        f"mkdir {ROOT}; ln {VICTIM} {ROOT}/.installed",
        ".installed",
    ),
    "settings that are a link": (
        f"mkdir -p {ROOT}/config; ln -s {VICTIM} {ROOT}/config/settings.default.yaml",
        "config/settings.default.yaml",
    ),
    "secrets that are a link": (f"mkdir {ROOT}; ln -s {VICTIM} {ROOT}/.env", ".env"),
    "secrets of his": (f"mkdir {ROOT}; touch {ROOT}/.env; chown {ATTACKER} {ROOT}/.env", ".env"),
    "a folder of code that is a link": (
        f"mkdir -p {ROOT}/flows; ln -s /etc {ROOT}/flows/steps",
        "flows/steps",
    ),
    "a folder of code that is his": (
        f"mkdir -p {ROOT}/daemon; chown {ATTACKER} {ROOT}/daemon",
        "daemon",
    ),
    "a folder of code that all may write to": (
        f"mkdir -p {ROOT}/bash; chmod 777 {ROOT}/bash",
        "bash",
    ),
    "a team's folder that is his": (
        f"mkdir -p {ROOT}/flows/lib; chown {ATTACKER} {ROOT}/flows/lib",
        "flows/lib",
    ),
    "outputs that are a link of his": (
        f"mkdir {ROOT}; ln -s /etc {ROOT}/out; chown -h {ATTACKER} {ROOT}/out",
        "out",
    ),
    "an inbox that is a link of his": (
        f"mkdir {ROOT}; ln -s /etc {ROOT}/data; chown -h {ATTACKER} {ROOT}/data",
        "data",
    ),
    "an interpreter of his": (PYTHON_OF_HIS, ".venv/bin/python"),
    "an interpreter that is a link of his": (LINKED_PYTHON, ".venv/bin/python"),
    "an environment that is a link": (
        f"mkdir -p {ROOT} /srv/venv; ln -s /srv/venv {ROOT}/.venv",
        ".venv",
    ),
    "a Python of his": (f"mkdir -p {ROOT}/.python; chown {ATTACKER} {ROOT}/.python", ".python"),
    "pins of his": (f"mkdir {ROOT}; touch {ROOT}/uv.lock; chown {ATTACKER} {ROOT}/uv.lock", "uv"),
}


@pytest.fixture(scope="module")
def machine() -> Iterator[Box]:
    with machine_of_its_own() as made:
        made.run("useradd", "--no-create-home", "--user-group", ATTACKER)
        yield made


@pytest.fixture
def box(machine: Box) -> Box:
    machine.run("rm", "-rf", "/srv", UNIT, PAGE, PWNED)
    machine.run("bash", "-c", f"mkdir -p /srv/site; echo precious >{VICTIM}; chmod 644 {VICTIM}")
    return machine


@pytest.mark.parametrize(("prepare", "named"), PREPARED.values(), ids=PREPARED.keys())
@pytest.mark.parametrize("verb", ["install", "uninstall"])
@pytest.mark.exhaustive
def test_a_place_that_others_have_prepared_is_refused_with_its_name(
    box: Box, verb: str, prepare: str, named: str
) -> None:
    box.run("bash", "-c", prepare)

    answer = ran(box, INSTALL, verb, ROOT)

    assert answer.code == 1
    assert named in answer.text
    assert any(what in answer.text for what in ("is not root's alone", "is a link", "a link: say"))
    assert box.path(VICTIM).read_text() == "precious\n"
    assert box.run("stat", "--format=%a %U", VICTIM, "/etc") == "644 root\n755 root"
    assert not box.path(PWNED).exists()
    assert not box.path(UNIT).exists()
    assert not box.run("find", "/srv", "-user", "ds-flow", check=False)


def test_the_attacker_himself_can_bring_no_more_than_that(box: Box) -> None:
    """What he can prepare where all may write: never a folder of root's."""
    box.run("chmod", "1777", "/srv/site")
    box.run("bash", "-c", f"{AS_ATTACKER} mkdir {ROOT}")
    box.run("bash", "-c", f"{AS_ATTACKER} ln -s {VICTIM} {ROOT}/.installed")
    box.run("chown", "root:", ROOT)  # a root that does as it is told, and no more
    box.run("chmod", "755", "/srv/site")

    assert ran(box, INSTALL, "install", ROOT).code == 1
    assert box.path(VICTIM).read_text() == "precious\n"


def test_a_list_names_nothing_outside_the_prefix(box: Box) -> None:
    box.run("mkdir", "-p", *(f"{ROOT}/{name}" for name in ("daemon", "flows", "bash", "systemd")))
    list_of_files = box.path(f"{ROOT}/.installed")
    unit = (CHECKOUT / "systemd" / "ds-flow.service").read_text()
    box.path(UNIT).write_text(unit.replace("/opt/ds-flow", ROOT))
    list_of_files.write_text(f"{'0' * 64}  ../../../{VICTIM}\n{'0' * 64}  {VICTIM}\n")

    assert ran(box, INSTALL, "uninstall", ROOT).code == 0

    assert box.path(VICTIM).read_text() == "precious\n"


UNITS_OF_OTHERS = {
    "a link": f"ln -s {VICTIM} {UNIT}",
    "a link to nothing": f"ln -s /dev/null {UNIT}",
    "a link to a unit": (
        f"sed 's#/opt/ds-flow#{ROOT}#' {CHECKOUT}/systemd/ds-flow.service >/srv/unit"
        f"; ln -s /srv/unit {UNIT}"
    ),
    "a folder": f"mkdir {UNIT}",
    "a unit of another program": f"printf '[Service]\\nExecStart=/bin/true\\n' >{UNIT}",
}


@pytest.mark.parametrize("prepare", UNITS_OF_OTHERS.values(), ids=UNITS_OF_OTHERS)
@pytest.mark.parametrize("verb", ["install", "uninstall"])
def test_a_unit_that_make_install_has_not_put_there_is_not_replaced(
    box: Box, verb: str, prepare: str
) -> None:
    box.run("bash", "-c", prepare)
    before = box.run("stat", "--format=%i %F", UNIT)

    answer = ran(box, INSTALL, verb, ROOT)

    assert (answer.code, f"{UNIT} is not a unit that make install" in answer.text) == (1, True)
    assert box.run("stat", "--format=%i %F", UNIT) == before
    assert box.path(VICTIM).read_text() == "precious\n"
    assert not box.path(ROOT).exists()


@pytest.mark.parametrize("verb", ["install", "uninstall"])
def test_a_page_that_make_install_has_not_put_there_is_not_replaced(box: Box, verb: str) -> None:
    box.path(PAGE).write_text("[Service]\nExecStart=/bin/true\n")
    before = box.run("stat", "--format=%i %F", PAGE)
    try:
        answer = ran(box, INSTALL, verb, ROOT)
        assert (answer.code, f"{PAGE} is not a unit that make install" in answer.text) == (1, True)
        assert box.run("stat", "--format=%i %F", PAGE) == before
        assert not box.path(ROOT).exists()
    finally:
        box.path(PAGE).unlink()


@pytest.mark.exhaustive
def test_an_upgrade_that_is_cut_off_forgets_no_file_that_it_has_installed(box: Box) -> None:
    box.run(INSTALL, "install", ROOT)
    cut = "/usr/local/sbin/sha256sum"
    half = f'#!/bin/sh\n[ $# -gt 9 ] || exec {SHA256SUM} "$@"\n{SHA256SUM} "$5" "$6"\nexit 1\n'
    box.path(cut).write_text(half)
    box.path(cut).chmod(0o755)
    assert ran(box, INSTALL, "install", ROOT).code == 1
    box.path(cut).unlink()

    box.run(INSTALL, "uninstall")

    left = box.run("find", ROOT, "-type", "f", "-printf", "%P\\n").split()
    assert [name for name in left if not name.startswith("config/")] == [".env"]


@pytest.mark.exhaustive
def test_a_purge_leaves_what_is_mounted_and_takes_everything_else_away(box: Box) -> None:
    box.run(INSTALL, "install", ROOT)
    data = f"{ROOT}/data"
    box.run("mount", "-t", "tmpfs", "none", data)
    try:
        box.run("touch", f"{data}/student_1.csv")

        said = box.run(INSTALL, "uninstall", "--purge")

        assert f"Kept: {data}" in said
        assert box.run("find", ROOT, "-mindepth", "1") == f"{data}\n{data}/student_1.csv"
        assert not box.path(UNIT).exists()
    finally:
        box.run("umount", data)


@pytest.mark.exhaustive
def test_an_install_runs_nothing_of_the_current_folder_and_keeps_what_root_and_the_team_have(
    box: Box,
) -> None:
    box.run("mkdir", "/srv/traps")
    for name in ("venv", "pip", "compileall", "sitecustomize", "grp", "struct"):
        box.path(f"/srv/traps/{name}.py").write_text(f"open({PWNED!r}, 'w')\n")
    box.path("/srv/traps/uv.toml").write_text("no = toml = at all\n")
    box.run("mkdir", "-p", "/srv/disk/out", "/srv/disk/data")
    for name in ("ledger/ledger.db", "flows/of_the_team.py", "config/settings.yaml"):
        box.run("install", "-D", f"--owner={ATTACKER}", "/dev/null", f"{ROOT}/{name}")
    box.run("chown", ATTACKER, f"{ROOT}/ledger")
    box.run("chmod", "711", "/srv/disk/out")
    for name in ("out", "data"):
        box.run("ln", "-s", f"/srv/disk/{name}", f"{ROOT}/{name}")
    before = box.run("stat", "--format=%a %U %G", "/srv/disk/out", "/srv/disk/data")

    said = box.run("bash", "-c", f"cd /srv/traps && {INSTALL} install {ROOT}")

    assert not box.path(PWNED).exists()
    assert box.run("stat", "--format=%a %U %G", "/srv/disk/out", "/srv/disk/data") == before
    assert f"{ROOT}/data is a link: the rights of where it leads to stay as they are" in said
    assert box.run("stat", "--format=%U", f"{ROOT}/ledger", f"{ROOT}/config/settings.yaml") == (
        f"{ATTACKER}\n{ATTACKER}"
    )
