"""`bash/deliver/copy_to_folder.sh`: whole files only, the manifest last, as often as you like."""

import hashlib
import json
import os
import shutil
import stat
import subprocess
from itertools import count
from pathlib import Path

import pytest

from ds_flow.core.program import CHECKOUT

SCRIPT = CHECKOUT / "bash" / "deliver" / "copy_to_folder.sh"
NAMES = ("final_combined_17.csv", "processed_student a 'é'_17.csv")
KILLER = """#!/bin/sh
count=$(cat {count}); echo $((count + 1)) >{count}
[ "$count" != {number} ] || {{ kill -9 $PPID; exit; }}
exec {program} "$@"
"""


@pytest.fixture
def out(tmp_path: Path) -> Path:
    folder = tmp_path / "out"
    folder.mkdir()
    for name in NAMES:
        (folder / name).write_text(f"id\n{name}\n" * 1000)
    manifest_of(folder, *NAMES)
    return folder


@pytest.fixture
def target(tmp_path: Path) -> Path:
    folder = tmp_path / "the share"
    folder.mkdir()
    return folder


def manifest_of(out: Path, *names: str) -> Path:
    outputs = [{"name": name, "sha256": sha256(out / name)} for name in names]
    path = out / "manifest_17.json"
    path.write_text(json.dumps({"outputs": outputs}))
    return path


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else "0" * 64


def copy(out: Path, target: Path, path: str = "") -> subprocess.CompletedProcess[str]:
    """Run the script where nothing can be left in a folder for temporary files."""
    given = {"PATH": f"{path}:{os.environ['PATH']}", "TMPDIR": str(out / "no such folder")}
    return subprocess.run(
        ["bash", str(SCRIPT), str(target), str(out / "manifest_17.json")],
        env={**os.environ, **given},
        capture_output=True,
        text=True,
        check=False,
    )


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_all_that_the_manifest_names_is_copied_and_the_manifest(out: Path, target: Path) -> None:
    (out / "manifest_16.json").write_text("{}")
    done = copy(out, target)
    assert (done.returncode, done.stderr) == (0, "")
    (out / "manifest_16.json").unlink()
    assert contents(target) == contents(out)


def test_what_is_there_is_left_as_it_is_and_what_differs_is_replaced(
    out: Path, target: Path
) -> None:
    copy(out, target)
    before = (target / NAMES[0]).stat().st_ctime_ns
    (target / NAMES[1]).write_text("half")
    assert copy(out, target).returncode == 0
    assert (target / NAMES[0]).stat().st_ctime_ns == before
    assert contents(target) == contents(out)


def test_a_link_in_the_folder_is_replaced_and_not_followed(
    out: Path, target: Path, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes((out / NAMES[0]).read_bytes())
    (target / NAMES[0]).symlink_to(elsewhere)
    (target / ".ds-flow_manifest_17.json.part").symlink_to(elsewhere)
    assert copy(out, target).returncode == 0
    assert stat.S_ISREG((target / NAMES[0]).lstat().st_mode)
    assert contents(target) == contents(out)


def test_a_manifest_that_is_a_link_is_copied_like_any_other(out: Path, target: Path) -> None:
    manifest = out / "manifest_17.json"
    content = manifest.read_bytes()
    manifest.symlink_to(manifest.rename(out / "elsewhere.json"))
    done = copy(out, target)
    assert (done.returncode, done.stderr) == (0, "")
    assert contents(target)[manifest.name] == content


def test_a_manifest_that_can_be_read_no_longer_is_a_failure(
    out: Path, target: Path, tmp_path: Path
) -> None:
    """Its outputs have been copied when the disk fails."""
    real = shutil.which("sha256sum")
    program = tmp_path / "sha256sum"
    program.write_text(
        "#!/bin/sh\n"
        f"case $(readlink /proc/self/fd/0) in */out/manifest*) exit 1;; esac\nexec {real}\n"
    )
    program.chmod(0o755)
    done = copy(out, target, path=str(tmp_path))
    assert done.returncode != 0
    assert set(contents(target)) == set(NAMES)


def test_bytes_that_are_not_those_of_the_manifest_are_not_handed_over(
    out: Path, target: Path
) -> None:
    (out / NAMES[1]).write_text("changed since")
    done = copy(out, target)
    assert done.returncode == 1
    assert f"{NAMES[1]}: its bytes are not those that were published" in done.stderr
    assert contents(target) == {NAMES[0]: (out / NAMES[0]).read_bytes()}


@pytest.mark.parametrize("name", ["../x.csv", ".x.csv"])
def test_a_name_that_leads_elsewhere_is_refused(out: Path, target: Path, name: str) -> None:
    manifest_of(out, *NAMES, name)
    assert "not the name of an output" in copy(out, target).stderr
    assert contents(target) == {}


def test_a_folder_that_is_not_there_such_as_a_share_that_is_not_mounted_is_not_made(
    out: Path, tmp_path: Path
) -> None:
    done = copy(out, tmp_path / "gone")
    assert (done.returncode, done.stderr) == (1, f"no such folder: {tmp_path}/gone\n")


def test_a_kill_at_any_moment_leaves_no_part_under_a_last_name_and_the_next_call_goes_on(
    out: Path, target: Path, tmp_path: Path
) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    counter = tmp_path / "count"
    for number in count():
        counter.write_text("0\n")
        for name in ("cp", "mv", "sync", "rm"):
            real = f"/bin/{name}"
            text = KILLER.format(count=counter, number=number, program=real)
            (programs / name).write_text(text)
            (programs / name).chmod(0o755)
        done = copy(out, target, str(programs))
        found = {name: text for name, text in contents(target).items() if name[0] != "."}
        assert found.items() <= contents(out).items()
        if "manifest_17.json" in found:
            assert found == contents(out)
        if done.returncode == 0:
            assert number > 10
            break
        assert copy(out, target).returncode == 0
        assert contents(target) == contents(out)
        for path in target.iterdir():
            path.unlink()
