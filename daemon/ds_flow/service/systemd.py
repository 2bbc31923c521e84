"""What the service and systemd tell each other."""

import ctypes
import math
import os
import socket
from contextlib import suppress

PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL = 47, 4  # prctl(2)


def notify(*lines: str) -> None:
    """Tell systemd (sd_notify(3)). Without systemd nothing happens."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender, suppress(OSError):
        sender.sendto("\n".join(lines).encode(), address)


def is_listening() -> bool:
    """Whether systemd started this process and wants to be told."""
    return "NOTIFY_SOCKET" in os.environ


def watchdog_s() -> float:
    """Seconds within which systemd wants a sign of life; infinite where it wants none."""
    return int(os.environ.get("WATCHDOG_USEC", "0")) / 1e6 or math.inf


def keep_rights() -> None:
    """Pass the right to take leases to no program that is started; this process keeps it."""
    ctypes.CDLL(None).prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
