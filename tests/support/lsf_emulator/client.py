"""The commands themselves: they ask the scheduler, print what it says, and log their call."""

import json
import os
import select
import socket
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

from lsf_emulator.words import CALLS, DOWN, SOCKET, Refused, split

NOTICE = "Cannot connect to LSF. Please wait ...\n"
FAILURE = 255
RETRY_S = 0.1  # between two notices


def main() -> NoReturn:
    """Run the command of this process's arguments: a name, then its own arguments."""
    command, *argv = sys.argv[1:]
    folder = Path(os.environ["LSF_EMULATOR"])
    call = f"{os.getpid()}-{time.monotonic_ns()}"
    log(folder, call=call, command=command, argv=argv, cwd=os.getcwd(), pid=os.getpid())  # noqa: PTH109 - as it is
    answer = ask(folder, request(command, argv)) or {"out": "", "err": NOTICE, "exit": FAILURE}
    show(answer["out"], 1)
    show(answer["err"], 2)
    if answer["exit"] < 0:
        os.kill(os.getpid(), -answer["exit"])
    log(folder, call=call, exit=answer["exit"])
    sys.exit(answer["exit"])


def request(command: str, argv: list[str]) -> dict[str, Any]:
    """What the scheduler needs to know of a call."""
    return {
        "command": command,
        "argv": argv,
        "cwd": os.getcwd(),  # noqa: PTH109 - as it is
        "env": dict(os.environ) if command == "bsub" else {},
        "stdin": sys.stdin.read() if command == "bsub" and reads_script(argv) else "",
    }


def reads_script(argv: list[str]) -> bool:
    """Whether bsub takes its job from standard input: it does where no command is given."""
    try:
        return not split(argv)[1]
    except Refused:
        return False


def ask(folder: Path, message: dict[str, Any]) -> dict[str, Any] | None:
    """The scheduler's answer, for which LSF's commands wait for ever; None if told to fail."""
    while True:
        down = read_down(folder, message["command"])
        if down is None:
            answer = exchange(folder, message)
            if answer is not None:
                return answer
        elif down["mode"] == "fail":
            return None
        show(NOTICE, 1 if down and down["stream"] == "stdout" else 2)
        select.select([], [], [], RETRY_S)


def read_down(folder: Path, command: str) -> dict[str, Any] | None:
    """How mbatchd is out of reach for this command; None if it is not."""
    try:
        down: dict[str, Any] = json.loads((folder / DOWN).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return down if command in down["commands"] else None


def exchange(folder: Path, message: dict[str, Any]) -> dict[str, Any] | None:
    """One question and its answer; None if nobody is there."""
    place = os.open(folder, os.O_PATH)
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            # by descriptor: the path of a socket has at most 107 bytes
            connection.connect(f"/proc/self/fd/{place}/{SOCKET}")
            connection.sendall(json.dumps(message).encode())
            connection.shutdown(socket.SHUT_WR)
            answer: dict[str, Any] = json.loads(b"".join(iter(lambda: connection.recv(65536), b"")))
            return answer
    except (OSError, ValueError):
        return None
    finally:
        os.close(place)


def show(text: str, stream: int) -> None:
    content = text.encode(errors="surrogateescape")
    while content:
        content = content[os.write(stream, content) :]


def log(folder: Path, **record: object) -> None:
    """Append to the record of calls, by one write, so that no kill leaves half a line."""
    line = json.dumps({"at": time.time(), **record}) + "\n"
    file = os.open(folder / CALLS, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.write(file, line.encode())
    os.close(file)
