"""Every usual way to bring a file gives its whole content, once and unchanged."""

import getpass
import os
import random
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import require

from project import Project, rows_of, until

ROWS, COLUMNS = 395, 28
APPENDED = ["processed_at", "source_file", "tag"]
CELLS = [
    "007",
    "1.10",
    "NA",
    "",
    "Köln",
    "a,b",
    'say "hi"',
    "two\nlines",
    "=1+1",
    " x ",
    "1e5",
    "学生",
]

SKIPPED = pytest.skip.Exception

Client = Callable[[Project, Path, str], None]


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A made-up table with every kind of cell."""
    path = tmp_path_factory.mktemp("sample") / "student_sample.csv"
    dice = random.Random(28)
    header = [f"column {number}" for number in range(COLUMNS)]
    rows = [[str(row), *dice.choices(CELLS, k=COLUMNS - 1)] for row in range(ROWS)]
    lines = [",".join(quoted(cell) for cell in row) for row in [header, *rows]]
    path.write_bytes("\r\n".join(lines).encode())
    return path


def quoted(cell: str) -> str:
    return '"' + cell.replace('"', '""') + '"' if set(cell) & set(',"\n') else cell


# --------------------------------------------------------------------------- the clients


def copy(project: Project, source: Path, name: str) -> None:
    subprocess.run(["cp", "-p", "--", source, project.inbox / name], check=True)


def move(project: Project, source: Path, name: str) -> None:
    shutil.copyfile(source, project.root / name)
    subprocess.run(["mv", "--", project.root / name, project.inbox / name], check=True)


def rsync(project: Project, source: Path, name: str) -> None:
    require("rsync")
    subprocess.run(["rsync", "-a", "--", source, project.inbox / name], check=True)


def write_slowly(project: Project, source: Path, name: str) -> None:
    """Write as curl does from a slow server: one handle, open all the time, not yet renamed."""
    never = threading.Event()
    content = source.read_bytes()
    with (project.inbox / name).open("wb", buffering=0) as file:
        for start in range(0, len(content), len(content) // 8):
            file.write(content[start : start + len(content) // 8])
            never.wait(0.2)


def scp(project: Project, source: Path, name: str) -> None:
    with ssh_server(project.root / "scp") as options:
        target = f"{getpass.getuser()}@127.0.0.1:{project.inbox / name}"
        run_client(["scp", *options, str(source), target])


def sftp(project: Project, source: Path, name: str) -> None:
    with ssh_server(project.root / "sftp") as options:
        batch = project.root / "sftp" / "batch"
        batch.write_text(f"put {source} {project.inbox / name}\n", encoding="utf-8")
        run_client(["sftp", *options, "-b", str(batch), f"{getpass.getuser()}@127.0.0.1"])


CLIENTS: dict[str, Client] = {
    "cp": copy,
    "mv": move,
    "rsync": rsync,
    "slowly": write_slowly,
    "scp": scp,
    "sftp": sftp,
}


def run_client(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@contextmanager
def ssh_server(folder: Path) -> Iterator[list[str]]:
    """Run a server of our own on loopback, with keys of its own; what a client must say to it."""
    sshd = require("sshd")
    folder.mkdir()
    for key in ("host", "user"):
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / key], check=True
        )
    (folder / "user.pub").rename(folder / "authorized")
    port = free_port()
    (folder / "sshd_config").write_text(
        f"ListenAddress 127.0.0.1:{port}\nHostKey {folder}/host\nPidFile none\n"
        f"AuthorizedKeysFile {folder}/authorized\nStrictModes no\nUsePAM no\n"
        "PasswordAuthentication no\nPermitRootLogin prohibit-password\n"
        "Subsystem sftp internal-sftp\n",
        encoding="utf-8",
    )
    if os.geteuid() == 0:  # else the server has no privileges to separate
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen([sshd, "-D", "-e", "-f", folder / "sshd_config"], stderr=log)
        try:
            until("sshd listened", lambda: listens(port) or server.poll() is not None)
            assert server.poll() is None, (folder / "log").read_text(encoding="utf-8")
            yield ssh_options(folder, port)
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait()


def ssh_options(folder: Path, port: int) -> list[str]:
    known = (folder / "host.pub").read_text(encoding="utf-8")
    (folder / "known").write_text(f"[127.0.0.1]:{port} {known}", encoding="utf-8")
    options = ["IdentitiesOnly=yes", "BatchMode=yes", f"UserKnownHostsFile={folder}/known"]
    said = [word for option in options for word in ("-o", option)]
    return ["-q", "-F", "none", "-i", str(folder / "user"), "-P", str(port), *said]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


# --------------------------------------------------------------------------- the story


@pytest.fixture(scope="module")
def delivered(
    tmp_path_factory: pytest.TempPathFactory, sample: Path
) -> Iterator[tuple[Project, set[str]]]:
    """A project to which every client there is has brought the table; the clients that did."""
    made = Project(tmp_path_factory.mktemp("clients"))
    try:
        made.start()
        with ThreadPoolExecutor() as pool:
            calls = {
                name: pool.submit(bring, made, sample, f"student_{name}.csv")
                for name, bring in CLIENTS.items()
            }
        # The tests of clients that are not installed skip themselves.
        missing = {n for n, call in calls.items() if isinstance(call.exception(), SKIPPED)}
        brought = calls.keys() - missing
        for name in brought:
            calls[name].result()
        made.wait_processed(*(f"student_{name}.csv" for name in brought))
        made.stop()
        yield made, brought
    finally:
        made.end_everything()


@pytest.mark.parametrize("name", CLIENTS)
def test_a_file_brought_by_any_client_comes_out_whole_and_once(
    delivered: tuple[Project, set[str]], sample: Path, name: str
) -> None:
    project, brought = delivered
    if name not in brought:
        require({"scp": "sshd", "sftp": "sshd"}.get(name, name))
    source = f"data/student_{name}.csv"
    outputs = [out for one in project.manifests() for out in one.outputs if out.source == source]
    assert len(outputs) == 1
    published = rows_of(project.out / outputs[0].name)
    originals = rows_of(sample)
    assert len(originals) == ROWS
    assert list(published[0]) == [*originals[0], *APPENDED]
    assert [without_appended(row) for row in published] == originals
    assert {(row["source_file"], row["tag"]) for row in published} == {(source, "spring")}
    assert [row for row in project.combined() if row["source_file"] == source] == published


def without_appended(row: dict[str, str]) -> dict[str, str]:
    return {name: cell for name, cell in row.items() if name not in APPENDED}
