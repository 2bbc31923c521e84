"""The kinds of error, sorted by who must act."""

import errno
import re


class DsFlowError(Exception):
    """Any error that ds-flow explains itself; everything else is a bug."""

    exit_code = 1


class SettingsError(DsFlowError):
    """The operator must change the settings or the host."""

    exit_code = 78  # EX_CONFIG; systemd is told not to restart on it


class InputError(DsFlowError):
    """The sender of a file must act. The file is set aside, and everything else goes on."""


class DispatchError(DsFlowError):
    """A backend or a file system failed. Trying again may help."""


class NoRoomError(DispatchError):
    """A run found a disk full or read-only. ds-flow waits until there is room."""

    def __init__(self, why: str, needed_bytes: int = 0) -> None:
        """`needed_bytes`: how much must be free for outputs, where that was measured."""
        super().__init__(why)
        self.needed_bytes = needed_bytes


class UnfitError(DispatchError):
    """A team's code cannot be loaded, so no file is to blame. ds-flow waits until it can be."""


class LedgerError(DsFlowError):
    """The ledger is broken, gone, or of another program version."""

    exit_code = 70  # EX_SOFTWARE


class BatchError(LedgerError):
    """A batch changed under us: another process moved it, or changed its files.

    The other batches go on, and this one is looked at again.
    """


class RequestError(DsFlowError):
    """What a person asked for does not exist, or is not possible now."""


OF_THE_DISK = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})


def is_disk_error(error: BaseException) -> bool:
    """Whether a disk is full or read-only. This concerns every batch, not only one."""
    return isinstance(error, OSError) and error.errno in OF_THE_DISK


NO_ROOM_WORDS = re.compile(
    rf"\[Errno ({'|'.join(map(str, sorted(OF_THE_DISK)))})\]"
    "|No space left on device|[Qq]uota exceeded|Read-only file system"
)


def says_no_room(text: str) -> bool:
    """Whether a program has said that a disk is full or read-only."""
    return bool(NO_ROOM_WORDS.search(text))


def is_no_room(error: Exception) -> bool:
    """Whether a run or one of its jobs found a disk full or read-only."""
    return isinstance(error, NoRoomError) or is_disk_error(error)
