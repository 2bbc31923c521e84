"""A PostgreSQL of Debian's for one test: in a folder of its own, reached by a Unix socket only."""

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from conftest import require

OWNER = "postgres"  # Debian makes this user; the server refuses to be root


def programs() -> Path:
    """Where Debian puts the programs of its newest version, which are not on PATH."""
    found = sorted(
        Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: float(path.parts[-2])
    )
    if not found:
        require("postgres")
    return found[-1]


class Postgres:
    """One server, which can be killed, stopped and started again."""

    def __init__(self, folder: Path) -> None:
        self._bin = programs()
        self.folder = folder
        self._server: subprocess.Popen[bytes] | None = None
        self._own(folder)
        self._run(
            "initdb", "--auth=trust", "--no-sync", "--encoding=UTF8", "-D", str(folder / "db")
        )

    @property
    def url(self) -> str:
        return f"postgresql+psycopg://{OWNER}@/postgres?host={self.folder}"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        config = ["-c", f"unix_socket_directories={self.folder}", "-c", "listen_addresses="]
        with (self.folder / "server.log").open("ab") as log:
            self._server = subprocess.Popen(
                self._command("postgres", "-D", str(self.folder / "db"), *config),
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        from project import until

        ready = [str(self._bin / "pg_isready"), "-q", "-h", str(self.folder)]
        until(
            "PostgreSQL answered",
            lambda: subprocess.run(ready, check=False).returncode == 0,
            while_lives=self._server,
        )

    def kill(self) -> None:
        """Kill the server and all that serves a connection, as a power loss would."""
        if self._server is not None:
            os.killpg(self._server.pid, signal.SIGKILL)
            for pid in self._children():
                os.kill(pid, signal.SIGKILL)
            self._server.wait()
            self._server = None

    def _children(self) -> list[int]:
        """The server's processes, which have sessions of their own. Their folder is the data's."""
        mine = str(self.folder / "db")
        found = []
        for entry in Path("/proc").iterdir():
            try:
                if entry.name.isdecimal() and os.readlink(entry / "cwd") == mine:
                    found.append(int(entry.name))
            except OSError:
                continue
        return found

    def _own(self, folder: Path) -> None:
        if os.geteuid() == 0:
            shutil.chown(folder, OWNER)

    def _command(self, program: str, *words: str) -> list[str]:
        command = [str(self._bin / program), *words]
        if os.geteuid() != 0:
            return command
        return ["setpriv", f"--reuid={OWNER}", f"--regid={OWNER}", "--clear-groups", "--", *command]

    def _run(self, program: str, *words: str) -> None:
        subprocess.run(self._command(program, *words), check=True, capture_output=True)


@contextmanager
def postgres() -> Iterator[Postgres]:
    """A server that runs. Its socket's path must be short, and its user may reach it."""
    with tempfile.TemporaryDirectory(prefix="pg") as name:
        server = Postgres(Path(name))
        server.start()
        try:
            yield server
        finally:
            server.kill()
