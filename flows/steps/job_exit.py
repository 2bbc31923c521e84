"""Exit codes of our own jobs when the job, and not a file, is to blame."""

import errno

from ds_flow.core import is_disk_error

USAGE = 64  # EX_USAGE
OUT_OF_FILES = 70  # EX_SOFTWARE: the transform closed this process's open files, or used them up
NO_MEMORY = 71  # EX_OSERR: Python could not get the memory that the transform asked for
OWN_DISK = 74  # EX_IOERR: our own files cannot be read or written
NO_ROOM = 75  # EX_TEMPFAIL: a disk is full or read-only, or a quota is used up
SETTINGS = 78  # EX_CONFIG: the transform cannot be found

OWN = frozenset({USAGE, OWN_DISK, NO_ROOM, SETTINGS})
SAID = ("process: ", "usage: ")  # how the last line begins that a job prints before it gives up

OUT_OF_FILES_ERRORS = frozenset({errno.EBADF, errno.EMFILE})
OUT_OF_FILES_REASON = "the transform closed open files that were not its own, or left none to open"


def of(error: OSError) -> int:
    """The exit code for an error with our own files."""
    if error.errno in OUT_OF_FILES_ERRORS:
        return OUT_OF_FILES
    return NO_ROOM if is_disk_error(error) else OWN_DISK
