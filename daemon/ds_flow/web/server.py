"""Where the page listens, and its process."""

import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from errno import EADDRINUSE
from pathlib import Path
from types import FrameType

import uvicorn

from ds_flow.core import SettingsError
from ds_flow.settings import Settings
from ds_flow.system import only_look, say
from ds_flow.web.app import make_app
from ds_flow.web.events import Events

NICE = 10  # the line goes first
BACKLOG = 64
MOST_CONNECTIONS = 128
GOODBYE_SECONDS = 2
GROUP_ONLY = 0o117  # a umask


class _Server(uvicorn.Server):
    """Lets listeners go as soon as it is told to stop."""

    events: Events
    stop_signal: int = 0

    def handle_exit(self, sig: int, _: FrameType | None) -> None:
        self.events.close()
        self.should_exit, self.stop_signal = True, sig


def serve_page(settings: Settings) -> int:
    """Serve the page until this process is told to stop; the signal that said so.

    Raises SettingsError if it cannot listen.
    """
    only_look()
    with suppress(OSError):
        os.nice(NICE)
    app = make_app(settings)
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=MOST_CONNECTIONS,
        timeout_graceful_shutdown=GOODBYE_SECONDS,
        ws="none",
        http="h11",
        loop="asyncio",
        lifespan="on",
    )
    server = _Server(config)
    server.events = app.state.events
    with _listening(settings.web.listen) as opened:
        say(f"the page is at {_address(settings.web.listen)}")
        server.run(sockets=[opened])
    return server.stop_signal


def _address(listen: str) -> str:
    return f"the socket {listen}" if listen.startswith("/") else f"http://{listen}/"


@contextmanager
def _listening(listen: str) -> Iterator[socket.socket]:
    """A socket that listens. Raises SettingsError if it cannot be opened."""
    try:
        opened = _at_path(listen) if listen.startswith("/") else _at_address(listen)
    except OSError as error:
        is_taken = error.errno == EADDRINUSE
        why = "another process listens there" if is_taken else error.strerror or error
        raise SettingsError(f"web.listen: {listen}: {why}") from error
    with opened:
        try:
            yield opened
        finally:
            if listen.startswith("/"):
                with suppress(OSError):
                    Path(listen).unlink()


def _at_address(listen: str) -> socket.socket:
    host, _, port = listen.rpartition(":")
    host = host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, int(port)), family=family, backlog=BACKLOG)


def _at_path(path: str) -> socket.socket:
    """A Unix socket for its user and group. One that a dead process has left is replaced."""
    with suppress(FileNotFoundError):
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise FileExistsError(17, "is not a socket; remove it", path)
        with socket.socket(socket.AF_UNIX) as asked:
            if asked.connect_ex(path) == 0:
                raise OSError(EADDRINUSE, "another process listens there")
        Path(path).unlink()
    opened = socket.socket(socket.AF_UNIX)
    umask = os.umask(GROUP_ONLY)
    try:
        opened.bind(path)
    finally:
        os.umask(umask)
    opened.listen(BACKLOG)
    return opened
