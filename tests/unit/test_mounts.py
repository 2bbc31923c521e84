"""Mounts: which file system holds a path."""

from pathlib import Path, PurePath
from threading import Thread

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ds_flow.system import mounts
from ds_flow.system.mounts import (
    Mount,
    ask_mounts,
    fs_type,
    is_network_fs,
    is_silent,
    parse,
    type_at,
)
from hung_mount import hung_mount
from project import until

MOUNTINFO = r"""22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 27 0:40 /export /data rw shared:2 master:3 - nfs4 server:/export rw
31 30 0:41 / /data/fast\040disk rw - xfs /dev/vdb rw
32 27 0:42 / /twice rw - ext4 /dev/vdc rw
33 27 0:43 / /twice rw - cifs //server/share rw
34 27 0:44 / /odd\134\012\011name rw - fuse.sshfs host: rw
"""


@pytest.mark.parametrize(
    ("path", "fs"),
    [
        ("/", "ext4"),
        ("/home/x", "ext4"),
        ("/data", "nfs4"),
        ("/data/a.csv", "nfs4"),
        ("/database", "ext4"),
        ("/data/fast disk/x", "xfs"),
        ("/twice/x", "cifs"),
        ("/odd\\\n\tname/x", "fuse.sshfs"),
    ],
)
def test_the_deepest_and_latest_mount_holds_a_path(path: str, fs: str) -> None:
    assert type_at(PurePath(path), parse(MOUNTINFO)) == fs


def test_nothing_is_said_where_nothing_is_mounted() -> None:
    assert type_at(PurePath("/x"), []) == ""


@given(st.text(alphabet=" -/\\0123\nab"))
def test_any_text_is_read(text: str) -> None:
    assert all(isinstance(mount, Mount) for mount in parse(text))


@pytest.mark.parametrize("fs", ["nfs", "nfs4", "cifs", "fuse.sshfs", "9p", "lustre", "virtiofs"])
def test_a_file_system_shared_with_other_hosts_is_known(fs: str) -> None:
    assert is_network_fs(fs)


@pytest.mark.parametrize("fs", ["ext4", "xfs", "btrfs", "tmpfs", "overlay", "fuseblk", ""])
def test_a_local_file_system_is_known(fs: str) -> None:
    assert not is_network_fs(fs)


@pytest.mark.exhaustive
def test_a_folder_that_is_a_link_to_a_mount_is_asked_where_it_leads(tmp_path: Path) -> None:
    served, link = tmp_path / "served", tmp_path / "link"
    served.mkdir()
    link.symlink_to("served")
    with hung_mount(served):
        assert ask_mounts(str(link)) == f"what {link} leads to does not answer"
        assert is_silent(str(link))
    assert ask_mounts(str(link)) == ""


@pytest.mark.exhaustive
def test_a_mount_below_a_folder_that_is_a_link_is_asked(tmp_path: Path) -> None:
    served, link = tmp_path / "served", tmp_path / "link"
    (served / "site").mkdir(parents=True)
    link.symlink_to("served")
    with hung_mount(served / "site"):
        assert ask_mounts(str(link)) == ""
        assert is_silent(str(served / "site" / "a.csv"))
        assert not is_silent(str(link))


@pytest.mark.exhaustive
def test_who_asks_for_one_folder_takes_nothing_away_from_who_asks_for_another(
    tmp_path: Path,
) -> None:
    inbox, out = tmp_path / "inbox", tmp_path / "out"
    (inbox / "site").mkdir(parents=True)
    out.mkdir()
    with hung_mount(inbox / "site"):
        assert ask_mounts(str(inbox)) == ""
        assert ask_mounts(str(out)) == ""
        assert is_silent(str(inbox / "site" / "a.csv"))
    assert ask_mounts(str(inbox)) == ""
    assert not is_silent(str(inbox / "site" / "a.csv"))


def test_two_who_ask_at_the_same_time_wait_for_one_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mounts, "ANSWER_SECONDS", 1000.0)
    said: list[str] = []
    askers = [Thread(target=lambda: said.append(ask_mounts(str(tmp_path)))) for _ in range(2)]
    with hung_mount(tmp_path):
        askers[0].start()
        until("one asks", lambda: str(tmp_path) in mounts.asking)
        askers[1].start()
        askers[1].join(1)  # it would say at once that nothing answers
    for asker in askers:
        asker.join()
    assert said == ["", ""]


def test_the_kernel_is_asked(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/proc/self")
    assert fs_type(tmp_path / "link" / "not there") == "proc"
    assert fs_type(tmp_path / "not there") == fs_type(tmp_path) != ""
