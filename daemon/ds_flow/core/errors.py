"""The kinds of error, sorted by who must act."""

import errno


class DsFlowError(Exception):
    """Any error that ds-flow explains itself; everything else is a bug."""

    exit_code = 1


class SettingsError(DsFlowError):
    """The operator must change the settings or the surroundings."""

    exit_code = 78  # EX_CONFIG; systemd is told not to restart on it


class InputError(DsFlowError):
    """The sender of one file must act; the file is set aside and the line goes on."""


class DispatchError(DsFlowError):
    """A backend, a file system or time is at fault; trying again may help."""


class NoRoomError(DispatchError):
    """A run's job met a disk that takes no more: it is waited out."""


class LedgerError(DsFlowError):
    """The ledger is broken, gone, or of another program version."""

    exit_code = 70  # EX_SOFTWARE


class BatchError(LedgerError):
    """One batch is not what it was taken for: somebody moved it meanwhile, or changed its files.

    The others go on, and it is looked at again.
    """


class RequestError(DsFlowError):
    """What a person asked for does not exist or is not possible now."""


OF_THE_DISK = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})


def is_disk_error(error: BaseException) -> bool:
    """Whether what one batch met is the disk's and so every batch's: full, or read-only."""
    return isinstance(error, OSError) and error.errno in OF_THE_DISK


def is_no_room(error: Exception) -> bool:
    """Whether a run met a disk that takes no more, itself or in one of its jobs."""
    return isinstance(error, NoRoomError) or is_disk_error(error)
