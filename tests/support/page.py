"""The page of a project: asked in this process, or served by a process of its own."""

import http.client
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from starlette.testclient import TestClient

from cli_project import Project
from ds_flow.settings.load import load_settings
from ds_flow.web.app import make_app
from project import until

DS_FLOW = [sys.executable, "-c", "import sys; from ds_flow.cli import main; sys.exit(main())"]


@contextmanager
def asked(project: Project) -> Iterator[TestClient]:
    """Ask the page as it is with the settings of this moment."""
    settings = load_settings(project.config, {})
    with TestClient(make_app(settings), base_url="http://127.0.0.1:8321") as client:
        client.headers["user-agent"] = "test"
        yield client


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as opened:
        port: int = opened.getsockname()[1]
        return port


def set_up(project: Project, **web: object) -> None:
    """Add the section `web` to the settings."""
    words = ", ".join(f"{name}: {_yaml(value)}" for name, value in web.items())
    kept = [line for line in project.config.read_text().splitlines() if not line.startswith("web:")]
    project.config.write_text("\n".join([*kept, f"web: {{{words}}}", ""]))


def _yaml(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else f"'{value}'"


@contextmanager
def served(project: Project, *, before: Sequence[str] = (), **web: object) -> Iterator[str]:
    """Serve the page by `ds-flow web`; its address. `before`: what starts the command."""
    port = free_port()
    set_up(project, listen=f"127.0.0.1:{port}", **web)
    command = [*before, *DS_FLOW, "web", "--config", str(project.config)]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
        try:
            until("the page was there", lambda: _is_there(port), while_lives=process)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            _, said = process.communicate()
            assert b"Traceback" not in said, said.decode()


def _is_there(port: int) -> bool:
    try:
        http.client.HTTPConnection("127.0.0.1", port).connect()
    except ConnectionRefusedError:
        return False
    return True


def open_files_of(root: Path) -> set[str]:
    """Every file below a folder, with its content's size and time."""
    return {
        f"{path} {path.stat().st_size} {path.stat().st_mtime_ns}"
        for path in root.rglob("*")
        if path.is_file()
    }
