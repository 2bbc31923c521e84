"""A dropper who means harm, beside all else: another user, who may write to the inbox only.

It goes on in a process of its own until it is ended, and works only under names of its own, which
are removed then: nothing of it is judged by the checker, everything of the others is.
"""

import ctypes
import errno
import fcntl
import os
import random
import shutil
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from chaos.drops import HARM, token

USER = 64_998  # no one's, on this machine
PAUSE_SECONDS = 0.02
FLOOD = 200  # names at once
SPARSE_BYTES = 150 << 30
AT_FDCWD, RENAME_EXCHANGE = -100, 2

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(slots=True)
class Hostile:
    """What one attack needs. `secret` is a table that this user may not read."""

    inbox: Path
    secret: Path
    table: bytes
    rng: random.Random

    def path(self, name: str) -> Path:
        return self.inbox / f"{HARM}{name}.csv"

    def fresh(self, name: str) -> Path:
        """A path with nothing in its place."""
        path = self.path(name)
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        path.unlink(missing_ok=True)
        return path

    # ------------------------------------------------------------------ attacks

    def exchange_link(self) -> None:
        """A table and a link to a secret change places, in turn."""
        table, link = self.fresh("swap"), self.inbox / ".x_swap"
        table.write_bytes(self.table)
        link.unlink(missing_ok=True)
        link.symlink_to(self.secret)
        for _ in range(self.rng.randint(1, 400)):
            exchange(table, link)

    def exchange_folder(self) -> None:
        """A link out of the inbox and a folder change places, in turn."""
        link, folder = self.fresh("folder"), self.inbox / ".x_folder"
        link.symlink_to(".x_folder/../../secret.csv")
        folder.mkdir(exist_ok=True)
        for _ in range(self.rng.randint(1, 400)):
            exchange(link, folder)

    def link_to_records(self) -> None:
        """To what the service writes, if the link is ever opened for it."""
        targets = ("../ledger/ledger.db", "../out/.work/ds-flow.lock", "../log/ds-flow.log", ".")
        self.fresh("records").symlink_to(self.rng.choice(targets))

    def fifo(self) -> None:
        os.mkfifo(self.fresh("fifo"))

    def socket(self) -> None:
        with socket.socket(socket.AF_UNIX) as opened:
            opened.bind(str(self.fresh("socket")))

    def folder(self) -> None:
        self.fresh("dir").mkdir()

    def unreadable(self) -> None:
        path = self.fresh("mode")
        path.write_bytes(self.table)
        path.chmod(self.rng.choice((0, 0o200, 0o600, 0o644)))

    def lease(self) -> None:
        """Whoever opens the file waits for the kernel to break the lease."""
        path = self.fresh("lease")
        path.write_bytes(self.table)
        with path.open("r+b") as file:
            fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_WRLCK)
            threading.Event().wait(0.5)

    def growing(self) -> None:
        """A table that changes whenever somebody could have read it."""
        with self.path("growing").open("ab") as file:
            file.write(self.table)

    def truncating(self) -> None:
        path = self.path("shrinking")
        path.write_bytes(self.table * self.rng.randint(1, 50))
        os.truncate(path, self.rng.randint(0, 60))

    def sparse(self) -> None:
        """Larger than any disk, and made of nothing."""
        with self.fresh("sparse").open("wb") as file:
            file.truncate(SPARSE_BYTES)

    def time(self) -> None:
        """Written in the past, in the future, or before there was time."""
        path = self.path("time")
        path.write_bytes(self.table)
        os.utime(path, (0, self.rng.choice((-1, 0, 2**33, 2**40))))

    def hard_links(self) -> None:
        """One file under many names."""
        path = self.fresh("links")
        path.write_bytes(self.table)
        for number in range(20):
            os.link(path, self.fresh(f"links_{number}"))

    def names(self) -> None:
        """Names that break lines, terminals and decoders."""
        for raw in (b"\n", b"\xff\xfe", b"\x1b[2J", b"\xe2\x80\xae", b"=cmd()", b"' OR 1=1 --"):
            path = os.fsencode(self.inbox / HARM) + raw + b".csv"
            with open(path, "wb") as file:  # noqa: PTH123 - a name of bytes
                file.write(b"a,a\n")

    def flood(self) -> None:
        for number in range(FLOOD):
            self.path(f"flood_{number}").write_bytes(b"a,b\n%d\n" % number)

    def vanish(self) -> None:
        for path in self.inbox.glob(f"{HARM}*"):
            with suppress(OSError):
                path.unlink()


# How often, beside the others.
ATTACKS: dict[Callable[[Hostile], None], int] = {
    Hostile.exchange_link: 30,
    Hostile.exchange_folder: 30,
    Hostile.link_to_records: 10,
    Hostile.fifo: 10,
    Hostile.socket: 10,
    Hostile.folder: 10,
    Hostile.unreadable: 10,
    Hostile.lease: 10,
    Hostile.growing: 30,
    Hostile.truncating: 10,
    Hostile.sparse: 2,
    Hostile.time: 5,
    Hostile.hard_links: 2,
    Hostile.names: 2,
    Hostile.flood: 1,
    Hostile.vanish: 5,
}


def exchange(one: Path, other: Path) -> None:
    """Let two names change places at once (renameat2(2))."""
    paths = (os.fsencode(one), os.fsencode(other))
    if _libc.renameat2(AT_FDCWD, paths[0], AT_FDCWD, paths[1], RENAME_EXCHANGE):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


@contextmanager
def hostile_beside(inbox: Path, number: int, seed: int) -> Iterator[None]:
    """Attack while the block runs. `number` marks the tables that are no harm in themselves."""
    secret = inbox.parent / "secret.csv"
    secret.write_text(f"token,value\n{token(0, 0)},secret\n")
    secret.chmod(0o600)
    os.chown(inbox, -1, USER)
    inbox.chmod(0o775)
    table = f"token,value\n{token(number, 0)},x\n".encode()
    pid = os.fork()
    if pid == 0:
        _attack_for_ever(Hostile(inbox, secret, table, random.Random(seed)))
    try:
        yield
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        for path in [*inbox.glob(f"{HARM}*"), *inbox.glob(".x_*")]:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()


def _attack_for_ever(hostile: Hostile) -> None:
    """Never returns. Faults of the world, as a full disk, are in its way like in anybody's."""
    try:
        os.setgroups([])
        os.setgid(USER)
        os.setuid(USER)
        attacks, weights = list(ATTACKS), list(ATTACKS.values())
        while os.getppid() != 1:
            with suppress(OSError):
                hostile.rng.choices(attacks, weights)[0](hostile)
            threading.Event().wait(PAUSE_SECONDS)
    finally:
        os._exit(errno.EPERM)
