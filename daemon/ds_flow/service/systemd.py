"""What the service and systemd tell each other."""

import ctypes
import math
import os
import socket
from collections import deque

PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL = 47, 4  # prctl(2)
ALIVE = b"WATCHDOG=1"
_unsent: deque[bytes] = deque(maxlen=16)


def notify(*lines: str) -> None:
    """Tell systemd (sd_notify(3)), without waiting for it. Without systemd nothing happens.

    What a full socket does not take is sent before the next notice.
    """
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    _unsent.append("\n".join(lines).encode())
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            while _unsent:
                sender.sendto(_unsent[0], socket.MSG_DONTWAIT, address)
                _unsent.popleft()
    except BlockingIOError:  # nobody reads the socket now
        if _unsent[-1] == ALIVE:  # a later sign of life is as good
            _unsent.pop()
    except OSError:
        _unsent.clear()


def is_listening() -> bool:
    """Whether systemd started this process and wants to be told."""
    return "NOTIFY_SOCKET" in os.environ


def watchdog_s() -> float:
    """Seconds within which systemd wants a sign of life; infinite where it wants none."""
    return int(os.environ.get("WATCHDOG_USEC", "0")) / 1e6 or math.inf


def keep_rights() -> None:
    """Pass the right to take leases to no program that is started; this process keeps it."""
    ctypes.CDLL(None).prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
