"""gzip and zstd files: read as the text in them, or refused in words and in little memory."""

import gzip as gzip_module
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest
from conftest import require
from hypothesis import given
from hypothesis import strategies as st

from csv_io.allowance import Allowance
from csv_io.errors import TableError
from csv_io.packed import unpacked_gzip, unpacked_zstd
from csv_io.table import UnreadableError
from ds_flow.core import Reading
from formats import gzip, read, read_apart, zstd

TEXT = b"name,score\nAnn,007\nBob,NA\n"
ROWS = [["name", "score"], ["Ann", "007"], ["Bob", "NA"]]
MORE = b"Cid,3\n"
Pack = Callable[..., bytes]


@pytest.fixture(autouse=True, scope="module")
def programs() -> None:
    require("zstd")


def put(folder: Path, name: str, content: bytes) -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv.gz", lambda: gzip(TEXT)),
        ("a.CSV.GZ", lambda: gzip(TEXT, "-9")),
        ("a.gz", lambda: gzip_module.compress(TEXT, 0)),
        ("two members.csv.gz", lambda: gzip(TEXT[:13]) + gzip(TEXT[13:])),
        ("an empty member.csv.gz", lambda: gzip(b"") + gzip(TEXT) + gzip(b"")),
        ("zeros behind, as on tapes.csv.gz", lambda: gzip(TEXT) + bytes(1000)),
        ("a.csv.zst", lambda: zstd(TEXT)),
        ("a.zst", lambda: zstd(TEXT, "-19", "--no-check")),
        ("two frames.csv.zst", lambda: zstd(TEXT[:13]) + zstd(TEXT[13:])),
        ("a frame to skip.csv.zst", lambda: b"\x50\x2a\x4d\x18\x03\0\0\0abc" + zstd(TEXT)),
    ],
)
def test_packed_text_is_read_as_the_text(
    tmp_path: Path, name: str, content: Callable[[], bytes]
) -> None:
    assert read(put(tmp_path, name, content())).rows == ROWS


@pytest.mark.parametrize(("pack", "ending"), [(gzip, "gz"), (zstd, "zst")])
def test_packed_text_has_any_encoding_and_delimiter(
    tmp_path: Path, pack: Pack, ending: str
) -> None:
    for text, encoding in (("nom;né\nZoë;1\n", "cp1252"), ("\ufeffnom;né\nZoë;1\n", "utf-16-le")):
        path = put(tmp_path, f"a.csv.{ending}", pack(text.encode(encoding)))
        assert read(path, Reading(encoding="cp1252")).rows == [["nom", "né"], ["Zoë", "1"]]


def flipped(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 0x55]) + content[middle + 1 :]


BIG = TEXT + MORE * 100_000

REFUSED: dict[str, tuple[str, Callable[[], bytes], str]] = {
    "gzip cut off": ("a.csv.gz", lambda: gzip(BIG)[:-200], "in the middle of its packed text"),
    "gzip without its checksum": ("a.csv.gz", lambda: gzip(BIG)[:-8], "it was cut off"),
    "gzip cut off in a header": ("a.csv.gz", lambda: gzip(TEXT)[:5], "it was cut off"),
    "a second member cut off": (
        "a.csv.gz",
        lambda: gzip(TEXT) + gzip(MORE * 100)[:-9],
        "it was cut off",
    ),
    "gzip damaged": ("a.csv.gz", lambda: flipped(gzip(BIG)), "damaged"),
    "gzip with a wrong checksum": (
        "a.csv.gz",
        lambda: gzip(TEXT)[:-8] + bytes(4) + gzip(TEXT)[-4:],
        "damaged",
    ),
    "something behind": ("a.csv.gz", lambda: gzip(TEXT) + b"a,b\n", "stands something else"),
    "no gzip": ("a.csv.gz", lambda: TEXT, "ends with .gz, but it is not a gzip file; rename it"),
    "an empty gzip file": ("a.csv.gz", lambda: b"", "the file is empty"),
    "no text in gzip": ("a.csv.gz", lambda: gzip(b""), "the file is empty"),
    "packed twice": ("a.csv.gz", lambda: gzip(gzip(TEXT)), "it is a gzip archive, not a CSV file"),
    "a tar archive": (
        "a.tar.gz",
        lambda: gzip(b"a.csv".ljust(257, b"\0") + b"ustar\x0000".ljust(500, b"\0")),
        "it is a tar archive, not a CSV file",
    ),
    "zstd cut off": ("a.csv.zst", lambda: zstd(BIG)[:-20], "it was cut off"),
    "a second frame cut off": ("a.csv.zst", lambda: zstd(TEXT) + zstd(MORE)[:-3], "cut off"),
    "zstd damaged": ("a.csv.zst", lambda: flipped(zstd(BIG)), "damaged"),
    "something behind zstd": ("a.csv.zst", lambda: zstd(TEXT) + b"a,b\n12345", "damaged"),
    "zstd with a dictionary": (
        "a.csv.zst",
        lambda: b"\x28\xb5\x2f\xfd\x21\x07\x04\x21\0\0a,b\n",  # that of number 7
        "it is packed with a dictionary; pack it without one",
    ),
    "no zstd": ("a.csv.zst", lambda: gzip(TEXT), "ends with .zst, but it is not a zstd file"),
    "gzip under another name": (
        "a.csv",
        lambda: gzip(TEXT),
        "it is a gzip archive, not a CSV file; name it .csv.gz and let paths.input_pattern match",
    ),
    "zstd under another name": ("a.csv", lambda: zstd(TEXT), "a zstd archive, not a CSV file; nam"),
}


@pytest.mark.parametrize(("name", "content", "reason"), REFUSED.values(), ids=REFUSED)
def test_what_is_not_whole_packed_text_is_refused_in_words(
    tmp_path: Path, name: str, content: Callable[[], bytes], reason: str
) -> None:
    with pytest.raises(TableError) as error:
        read(put(tmp_path, name, content()))
    assert reason in str(error.value)
    assert error.value.without_quotes().reason == error.value.reason


@given(st.binary(max_size=300), st.integers(1, 50), st.sampled_from([0, 1, 5]))
def test_any_bytes_come_out_of_gzip_as_they_went_in_wherever_a_block_ends(
    content: bytes, size: int, level: int
) -> None:
    half = len(content) // 2
    packed = gzip_module.compress(content[:half], level) + gzip_module.compress(content[half:])
    blocks = (packed[start : start + size] for start in range(0, len(packed), size))
    assert b"".join(unpacked_gzip(blocks, Allowance(1, 1, 1))) == content


@pytest.mark.parametrize(
    ("unpacked", "pack"), [(unpacked_gzip, gzip), (unpacked_zstd, zstd)], ids=["gzip", "zstd"]
)
def test_a_read_that_the_system_refuses_is_not_the_fault_of_packed_text(
    unpacked: Callable[[Iterable[bytes], Allowance], Iterator[bytes]], pack: Pack
) -> None:
    def broken() -> Iterator[bytes]:
        yield pack(BIG)[:50]
        raise UnreadableError("Input/output error")

    with pytest.raises(UnreadableError):
        list(unpacked(broken(), Allowance(1, 100, 1000)))


# --------------------------------------------------------------------------- bombs


MANY = b"1,2\n" * 1_000_000


@pytest.mark.parametrize(("pack", "ending"), [(gzip, "gz"), (zstd, "zst")])
@pytest.mark.exhaustive
def test_a_bomb_is_refused_in_little_memory_and_the_setting_is_named(
    tmp_path: Path, pack: Pack, ending: str
) -> None:
    path = put(tmp_path, f"a.csv.{ending}", pack(b"a,b\n") + pack(MANY) * 75)
    ratio, memory_mb = read_apart(path)
    assert ratio == (
        "TableError: unpacked, it is over 200 times as large;"
        " if it is good, raise csv.max_unpacked_ratio"
    )
    assert memory_mb < 400
    size, memory_mb = read_apart(path, mb=100, ratio=10_000_000)
    assert (
        size == "TableError: unpacked, it has over 100 MB; if it is good, raise csv.max_unpacked_mb"
    )
    assert memory_mb < 400


def test_a_bomb_of_zeros_is_refused_at_its_first_line(tmp_path: Path) -> None:
    path = put(tmp_path, "a.csv.gz", gzip(bytes(2**20)) * 256)
    said, memory_mb = read_apart(path, ratio=10_000)
    assert said == "TableError: line 1: a NUL byte"
    assert memory_mb < 400


@pytest.mark.exhaustive
def test_a_window_of_much_memory_is_refused(tmp_path: Path) -> None:
    packed = zstd(b"a,b\n" + MANY * 50, "--long=31", "-3")
    said, memory_mb = read_apart(put(tmp_path, "a.csv.zst", packed), ratio=10**6)
    assert "a window of over 128 MB (zstd --long)" in said
    assert memory_mb < 400


def test_a_file_that_packs_well_is_read_while_it_is_small(tmp_path: Path) -> None:
    path = put(tmp_path, "a.csv.gz", gzip(b"a,b\n" + b",\n" * 1_000_000))
    assert read_apart(path)[0] == "1000000 rows"
