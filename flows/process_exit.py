"""How process.py ends when it, and no file, is at fault; a transform has no use for these."""

import errno

USAGE = 64  # EX_USAGE
OUT_OF_FILES = 70  # EX_SOFTWARE: a transform has closed this process's open files, or used them up
OWN_DISK = 74  # EX_IOERR: our own side cannot be read or written
SETTINGS = 78  # EX_CONFIG: there is no such transform

OWN = frozenset({USAGE, OWN_DISK, SETTINGS})

OUT_OF_FILES_ERRORS = frozenset({errno.EBADF, errno.EMFILE})
OUT_OF_FILES_REASON = "the transform closed open files that were not its own, or left none to open"
