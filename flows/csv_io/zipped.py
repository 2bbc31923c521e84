"""The members of a zip archive that a stranger made, each read in one pass and in little memory."""

import errno
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, BinaryIO

from csv_io.allowance import Allowance
from csv_io.errors import TableError

BLOCK_BYTES = 2**18
LIST_BYTES = 2**22  # of the list of all members, which is read as a whole
END_BYTES = 2**16 + 22 + 76  # with the end of a large archive, which may be that of a small one
END, PLACE_OF_LARGE, END_OF_LARGE = b"PK\5\6", b"PK\6\7", b"PK\6\6"
METHODS = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED})
ENCRYPTED = 1

FAULTS = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, UnicodeDecodeError)
"""What zipfile raises for a damaged archive. Any other error is ours, and is not hidden."""

DAMAGED = "it is damaged or cut off; send it again"


class Archive:
    """An open zip archive."""

    def __init__(self, file: BinaryIO, allowance: Allowance) -> None:
        """Read the list of its members.

        Raises:
            TableError: it is not a zip archive, damaged, or its list is too long.
        """
        refuse_long_list(file)
        self._allowance = allowance
        with errors_told():
            self._zip = zipfile.ZipFile(file)
        self._members: dict[str, list[zipfile.ZipInfo]] = {}
        for info in self._zip.infolist():
            self._members.setdefault(_key(info.filename), []).append(info)

    def blocks(self, name: str) -> Iterator[bytes]:
        """Give a member's bytes. Its name may be written in small letters or capital ones.

        Raises:
            TableError: the member is missing, damaged or too large, or has a password.
        """
        found = self._members.get(_key(name), [])
        if not found:
            raise TableError(f"it has no part {name!r}, so it is damaged, or of another kind")
        if len(found) > 1:
            raise TableError(f"it has two parts {name!r}; save it anew")
        info = found[0]
        with errors_told():
            if info.flag_bits & ENCRYPTED:
                raise TableError("it is protected by a password; save it without one")
            if info.compress_type not in METHODS:
                raise TableError(DAMAGED)
            member = self._zip.open(info)
        with member:
            while block := self._read(member):
                self._allowance.take(len(block))
                yield block

    def whole(self, name: str, most_bytes: int = 2**24) -> bytes:
        """Give a small member's bytes."""
        content = b""
        for block in self.blocks(name):
            content += block
            if len(content) > most_bytes:
                raise TableError(f"its part {name!r} is over {most_bytes // 2**20} MB")
        return content

    @staticmethod
    def _read(member: IO[bytes]) -> bytes:
        with errors_told():
            return member.read(BLOCK_BYTES)


def _key(name: str) -> str:
    """What names of one part have in common: case means nothing, and some write backslashes."""
    return name.replace("\\", "/").lower()


def refuse_long_list(file: BinaryIO) -> None:
    """Refuse what is not a zip archive, or one with more members than a workbook has."""
    size = file.seek(0, 2)
    file.seek(max(0, size - END_BYTES))
    tail = file.read()
    at = tail.rfind(END)
    if at < 0 or len(tail) < at + 22:
        raise TableError(DAMAGED)
    (list_bytes,) = struct.unpack_from("<I", tail, at + 12)
    if tail[max(0, at - 20) : at].startswith(PLACE_OF_LARGE):
        list_bytes = _length_of_large(tail, at, size - len(tail))
    if list_bytes > LIST_BYTES:
        raise TableError("it is a zip archive of more parts than a workbook has")


def _length_of_large(tail: bytes, at: int, start: int) -> int:
    """How long the list of a large archive is. `at` is its last end, `start` where the tail begins.

    Some versions of zipfile look right before the last end for it, others where the archive says
    that it is. Here both must be one place.
    """
    large = at - 76
    (place,) = struct.unpack_from("<Q", tail, at - 12)
    if large < 0 or place != start + large or not tail.startswith(END_OF_LARGE, large):
        raise TableError(DAMAGED)
    (list_bytes,) = struct.unpack_from("<Q", tail, large + 40)
    return int(list_bytes)


@contextmanager
def errors_told() -> Iterator[None]:
    """Say of an error with an archive that the file is to blame."""
    try:
        yield
    except FAULTS as error:
        raise TableError(DAMAGED) from error
    except OSError as error:
        if error.errno != errno.EINVAL:  # a place before the start of the file
            raise
        raise TableError(DAMAGED) from error
