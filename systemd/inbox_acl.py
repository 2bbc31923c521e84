"""inbox_acl.py FOLDER GROUP: let the members of GROUP read what others put into FOLDER; as root.

The folder's own group may put files there, and read or change only what they own.
"""

import errno
import grp
import os
import struct
import sys

# Tags and rights of <sys/acl.h>, as the kernel keeps them in an extended attribute.
OWNER, FOLDERS_GROUP, NAMED_GROUP, MASK, OTHERS = 0x01, 0x04, 0x08, 0x10, 0x20
NOTHING, READ, ALL = 0, 5, 7  # READ is r-x: for folders, too
VERSION, NO_ID = 2, 0xFFFFFFFF


def acl(reader: int, in_group: int) -> bytes:
    """An access control list, its entries in the order that the kernel wants."""
    entries = (
        (OWNER, ALL, NO_ID),
        (FOLDERS_GROUP, in_group, NO_ID),
        (NAMED_GROUP, READ, reader),
        (MASK, in_group | READ, NO_ID),
        (OTHERS, NOTHING, NO_ID),
    )
    return struct.pack("<I", VERSION) + b"".join(struct.pack("<HHI", *one) for one in entries)


def main(folder: str, group: str) -> str | None:
    """Return what is to be said if the file system has no such lists: then modes decide alone."""
    reader = grp.getgrnam(group).gr_gid
    try:
        os.setxattr(folder, "system.posix_acl_access", acl(reader, ALL), follow_symlinks=False)
        os.setxattr(folder, "system.posix_acl_default", acl(reader, NOTHING), follow_symlinks=False)
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise
        return (
            f"{folder} is on a file system without access control lists: files there are private"
            " only as far as the modes go that those who drop them choose"
        )
    return None


if __name__ == "__main__":
    if said := main(*sys.argv[1:]):
        print(said)
