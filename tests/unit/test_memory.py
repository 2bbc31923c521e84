"""system/memory: how much memory a further process may have."""

from pathlib import Path

import pytest

from ds_flow.system import memory

MB = 2**20


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A host of 8,000 MB, of which 1,000 are available, and which has no groups."""
    (tmp_path / "meminfo").write_text(f"MemTotal: {8000 * 1024} kB\nMemAvailable: 1024000 kB\n")
    (tmp_path / "cgroup").write_text("")
    monkeypatch.setattr(memory, "MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(memory, "CGROUP", tmp_path / "cgroup")
    monkeypatch.setattr(memory, "MOUNT", tmp_path)
    return tmp_path


def group(folder: Path, files: tuple[str, str, str], limit: str, used_mb: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / files[0]).write_text(f"{limit}\n")
    (folder / files[1]).write_text(f"{used_mb * MB}\n")
    (folder / "memory.stat").write_text(f"anon 1\n{files[2]} {50 * MB}\n")


@pytest.mark.usefixtures("host")
def test_without_groups_it_is_what_the_host_has() -> None:
    assert memory.available_mb() == 1000


@pytest.mark.parametrize(
    ("line", "root", "files"),
    [
        ("0::/a/b\n", "", memory.V2),
        ("4:memory:/a/b\n", "memory", memory.V1),
        ("5:cpu,memory:/a/b\n1:name=systemd:/a\n", "memory", memory.V1),
    ],
)
def test_the_group_that_leaves_least_counts(
    host: Path, line: str, root: str, files: tuple[str, str, str]
) -> None:
    (host / "cgroup").write_text(line)
    group(host / root / "a" / "b", files, "max", 100)
    group(host / root / "a", files, str(500 * MB), 300)

    assert memory.available_mb() == 250  # its cache can be freed


def test_a_group_that_is_out_of_sight_limits_nothing(host: Path) -> None:
    (host / "cgroup").write_text("0::/../elsewhere\n")
    assert memory.available_mb() == 1000
