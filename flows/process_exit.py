"""How process.py ends when it, and no file, is at fault; a transform has no use for these."""

USAGE = 64  # EX_USAGE
OWN_DISK = 74  # EX_IOERR: our own side cannot be read or written
SETTINGS = 78  # EX_CONFIG: there is no such transform

OWN = frozenset({USAGE, OWN_DISK, SETTINGS})
