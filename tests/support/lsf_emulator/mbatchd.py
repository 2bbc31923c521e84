"""The scheduler process: it listens, dispatches, and keeps every job. One thread, no locks."""

import contextlib
import json
import os
import random
import selectors
import shutil
import signal
import socket
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lsf_emulator.commands import FAILURE, Answer, Cluster, answer
from lsf_emulator.config import Config
from lsf_emulator.elements import Element
from lsf_emulator.execution import Executor
from lsf_emulator.faults import COMMANDS, Fault, write_slow_mv
from lsf_emulator.sessions import kill_marked
from lsf_emulator.words import DOWN, SOCKET

STARTS_AT_ONCE = 25  # between two looks at the socket
IDLE_S = 1.0
HOSTS = 8


class Connection:
    """A client: its whole request is read, then its answer is written."""

    def __init__(self, peer: socket.socket, mbatchd: "Mbatchd") -> None:
        self._peer = peer
        self._mbatchd = mbatchd
        self._request = b""
        self._left = b""
        peer.setblocking(False)  # noqa: FBT003 - its only argument
        mbatchd.selector.register(peer, selectors.EVENT_READ, self.read)

    def read(self) -> None:
        content = b""
        with contextlib.suppress(ConnectionError):
            content = self._peer.recv(2**20)
        self._request += content
        if content:
            return
        self._mbatchd.selector.unregister(self._peer)
        try:
            message = json.loads(self._request)
        except ValueError:
            self._peer.close()  # killed before it had said what it wanted
            return
        self._mbatchd.take(message, self)

    def reply(self, content: dict[str, Any]) -> None:
        self._left = json.dumps(content).encode()
        self._mbatchd.selector.register(self._peer, selectors.EVENT_WRITE, self._write)

    def _write(self) -> None:
        try:
            self._left = self._left[self._peer.send(self._left) :]
        except ConnectionError:
            self._left = b""  # the client was killed
        if not self._left:
            self._mbatchd.selector.unregister(self._peer)
            self._peer.close()


class Mbatchd:
    """The loop."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = Config.read(folder)
        self.selector = selectors.DefaultSelector()
        self.cluster = Cluster(self.config, Executor(folder, self.config))
        self._held: list[tuple[dict[str, Any], Connection]] = []  # while it is hung
        self._silent: list[Connection] = []  # whose answer was lost
        self._is_stopping = False
        self._open: list[Element] = []  # those that may have to be started
        self._known = 0  # elements that have been looked at
        self._next_host = 0

    def run(self) -> None:
        """Serve until standard input, which the test holds, is closed."""
        listener = self._listen()
        self.selector.register(listener, selectors.EVENT_READ, lambda: self._accept(listener))
        self.selector.register(0, selectors.EVENT_READ, self._stop)
        self._wake_on_children()
        os.write(1, b"ready\n")
        while not self._is_stopping:
            for key, _ in self.selector.select(self._pause_s()):
                key.data()
            self.cluster.executor.reap()
            self.cluster.executor.look_after()
            self._dispatch()
        kill_marked(os.fsencode(f"LSF_EMULATOR={self.folder}"))

    def _listen(self) -> socket.socket:
        os.chdir(self.folder)  # the path of a socket has at most 107 bytes
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(SOCKET)
        listener.listen(128)
        os.chdir("/")
        return listener

    def _accept(self, listener: socket.socket) -> None:
        Connection(listener.accept()[0], self)

    def _stop(self) -> None:
        self._is_stopping = not os.read(0, 1)

    def _wake_on_children(self) -> None:
        """Let SIGCHLD end a select."""
        reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        self.selector.register(reader, selectors.EVENT_READ, lambda: os.read(reader, 4096))

    def _pause_s(self) -> float:
        is_new = self._known < len(self.cluster.elements)
        busy = is_new or self._open or self.cluster.executor.running
        return self.config.scheduling_delay_s if busy else IDLE_S

    def take(self, message: dict[str, Any], connection: Connection) -> None:
        """Answer a request, now or later or never."""
        if message["command"] == "control":
            connection.reply({"result": self._control(**message["control"])})
        elif self.cluster.faults.strike("hung", message["command"]):
            self._held.append((message, connection))
        else:
            self._answer(message, connection)

    def _answer(self, message: dict[str, Any], connection: Connection) -> None:
        try:
            said = answer(self.cluster, message)
        except Exception:  # noqa: BLE001 - a test must see it, and the other tests go on
            said = Answer(err=traceback.format_exc(), exit=FAILURE)
        if said is None:
            self._silent.append(connection)
        else:
            connection.reply(asdict(said))

    def _control(self, verb: str, **arguments: Any) -> Any:
        verbs: dict[str, Callable[..., Any]] = {
            "fault": self._fault,
            "mend": self._mend,
            "jobs": self._jobs,
            "held": lambda: len(self._held),
            "rerun": self._rerun,
        }
        return verbs[verb](**arguments)

    def _fault(self, name: str, arguments: dict[str, Any]) -> None:
        self.cluster.faults.put(name, arguments)
        if name == "down":
            how = {"mode": "wait", "stream": "stderr", "commands": COMMANDS, **arguments}
            part = self.folder / ".down"
            part.write_text(json.dumps(how), encoding="utf-8")
            part.replace(self.folder / DOWN)
        elif name == "late_exit":
            mv = shutil.which("mv") or "/bin/mv"
            write_slow_mv(self.folder / "slow", mv, arguments["seconds"])

    def _mend(self, name: str) -> None:
        fault = self.cluster.faults.get(name)  # type: ignore[arg-type] # any name may be asked for
        self.cluster.faults.mend(name)
        if name == "down":
            (self.folder / DOWN).unlink(missing_ok=True)
        elif name == "hung":
            held, self._held = self._held, []
            for message, connection in held:
                self._answer(message, connection)
        elif name == "unknown" and fault:
            self._kill_again(fault)

    def _kill_again(self, fault: Fault) -> None:
        """Pass on the bkills that came while hosts were out of contact."""
        for element in list(self.cluster.executor.running.values()):
            if fault.concerns(element) and element.reason:
                self.cluster.executor.stop(element, element.reason)

    def _jobs(self) -> list[dict[str, Any]]:
        return [
            {
                "job_id": e.job_id,
                "index": e.index,
                "name": e.submission.name,
                "queue": e.submission.queue,
                "slots": e.submission.slots,
                "status": e.status,
                "exit_code": e.exit_code,
                "reason": e.reason,
                "host": e.host,
                "pid": e.pid,
                "submitted_at": e.submitted_at,
                "started_at": e.started_at,
                "ended_at": e.ended_at,
            }
            for e in self.cluster.elements
        ]

    def _rerun(self, job_id: int, index: int) -> None:
        """Start an element again under its own id; what ran before goes on, unknown to LSF."""
        for element in self.cluster.elements:
            if (element.job_id, element.index) == (job_id, index):
                element.host = self._host()
                element.ended_at, element.exit_code, element.reason = 0.0, None, ""
                self._start(element)

    def _dispatch(self) -> None:
        """Start what fits, in the order of submission."""
        if self.cluster.faults.get("down"):
            return
        elements = self.cluster.elements
        self._open += elements[self._known :]
        self._known = len(elements)
        for count, element in enumerate(self._fitting()):
            element.host = self._host()
            self._start(element)
            if count == STARTS_AT_ONCE:
                break
        self._open = [e for e in self._open if e.status in {"PEND", "PSUSP"}]

    def _fitting(self) -> Iterator[Element]:
        """The elements for which there are free slots, in all, in the queue, and in the array."""
        running = list(self.cluster.executor.running.values())
        free = self.config.slots - sum(e.submission.slots for e in running)
        queued = Counter[str]()
        for e in running:
            queued[e.submission.queue] += e.submission.slots
        at_once = Counter(e.job_id for e in running)
        submitted_before = time.time() - self.config.scheduling_delay_s
        for element in self._open:
            if free <= 0 or element.submitted_at > submitted_before:
                return
            words = element.submission
            fits_queue = queued[words.queue] + words.slots <= self.config.queues[words.queue]
            fits_array = words.parallel is None or at_once[element.job_id] < words.parallel
            if element.status == "PEND" and words.slots <= free and fits_queue and fits_array:
                free -= words.slots
                queued[words.queue] += words.slots
                at_once[element.job_id] += 1
                yield element

    def _host(self) -> str:
        self._next_host = self._next_host % HOSTS + 1
        return f"node{self._next_host:02}"

    def _start(self, element: Element) -> None:
        slow = self.cluster.faults.get("late_exit", element)
        self.cluster.executor.start(element, str(self.folder / "slow") if slow else "")


if __name__ == "__main__":
    random.seed()
    Mbatchd(Path(sys.argv[1])).run()
