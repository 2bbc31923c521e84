"""What a job's exit code means, unless the backend knows more."""

import signal

from ds_flow.core import FailureClass

LIMIT_EXIT_CODE = 124  # timeout(1)
RUN_LIMIT_REACHED = "run limit reached"
OUTSIDE_SIGNALS = frozenset({signal.SIGHUP, signal.SIGINT, signal.SIGKILL, signal.SIGTERM})

End = tuple[FailureClass | None, str]
"""Why a job failed, and the reason in words. None and "" if it succeeded."""

NO_EXIT_CODE: End = (FailureClass.INFRASTRUCTURE, "ended without leaving an exit code")


def of_exit_code(code: int) -> End:
    """What an exit code means: success, the job's own failure, a crash, or a kill from outside."""
    if code == 0:
        return None, ""
    if code == LIMIT_EXIT_CODE:
        return FailureClass.LIMIT, RUN_LIMIT_REACHED
    killer = signal_of(code)
    if killer is None:
        return FailureClass.USER_CODE, f"exit code {code}"
    if killer in OUTSIDE_SIGNALS:
        return FailureClass.KILLED, f"killed by {killer.name}"
    return FailureClass.CRASH, f"crashed by {killer.name}"


def signal_of(code: int) -> signal.Signals | None:
    """The signal that an exit code over 128 stands for."""
    try:
        return signal.Signals(code - 128)
    except ValueError:
        return None
