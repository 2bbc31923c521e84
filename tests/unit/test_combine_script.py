import contextlib
import csv
import io
import os
import re
import signal
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from csv_io.table import TEXT
from csv_io.writing import TableWriter
from disks import mounted
from ds_flow.core.program import CHECKOUT

SCRIPT = CHECKOUT / "bash" / "combine.sh"
CELL = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=6),
    st.text(',"\r\n a', max_size=6),
)


def combine(
    folder: Path, *arguments: str, stdin: bytes = b"", script: Sequence[str] = ("bash", str(SCRIPT))
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [*script, *arguments], cwd=folder, input=stdin, capture_output=True, check=False
    )
    return subprocess.CompletedProcess(
        done.args, done.returncode, done.stdout.decode(), done.stderr.decode()
    )


def put(folder: Path, **contents: str) -> list[str]:
    names = [f"{name}.csv" for name in contents]
    for name, content in zip(names, contents.values(), strict=True):
        (folder / name).write_bytes(content.encode())
    return names


def assert_refused(done: subprocess.CompletedProcess[str], folder: Path, reason: str) -> None:
    """Refused with this reason, with no output and nothing left behind."""
    assert done.returncode == 1
    assert done.stderr.startswith("combine.sh: ")
    assert reason in done.stderr
    assert not [path for path in folder.iterdir() if "out" in path.name]


@settings(max_examples=25)
@given(st.data())
@pytest.mark.exhaustive
def test_the_combination_is_the_header_and_all_rows_in_order(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("combine")
    header = data.draw(st.lists(CELL, min_size=2, max_size=3))
    row = st.lists(CELL, min_size=len(header), max_size=len(header))
    files = data.draw(st.lists(st.lists(row, max_size=3), min_size=1, max_size=4))
    for number, rows in enumerate(files):
        with folder.joinpath(f"{number}.csv").open("wb") as stream:
            writer = TableWriter(stream, header, {})
            columns = [pa.array(column, TEXT) for column in zip(*rows, strict=True)]
            writer.write(pa.table(columns or [pa.array([], TEXT)] * len(header), names=header))
    done = combine(folder, "out.csv", *(f"{number}.csv" for number in range(len(files))))
    assert (done.returncode, done.stderr) == (0, "")
    content = folder.joinpath("out.csv").read_bytes().decode()
    found = list(csv.reader(io.StringIO(content, newline=""), strict=True))
    assert found == [header, *(row for rows in files for row in rows)]


def test_one_input_is_copied(tmp_path: Path) -> None:
    names = put(tmp_path, a="a,b\n1,2\n")
    assert combine(tmp_path, "out.csv", *names).returncode == 0
    assert (tmp_path / "out.csv").read_text() == "a,b\n1,2\n"


def test_inputs_with_a_header_alone_add_nothing(tmp_path: Path) -> None:
    names = put(tmp_path, a="a\n", b="a\n1\n", c="a\n")
    assert combine(tmp_path, "out.csv", *names).returncode == 0
    assert (tmp_path / "out.csv").read_text() == "a\n1\n"


def test_inputs_without_their_last_newline_are_joined_right(tmp_path: Path) -> None:
    names = put(tmp_path, a="a,b\n1,2", b="a,b", c="a,b\n3,4\n", d="a,b\n5,6")
    done = combine(tmp_path, "out.csv", *names)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "out.csv").read_text() == "a,b\n1,2\n3,4\n5,6\n"
    assert (tmp_path / "a.csv").read_text() == "a,b\n1,2"


def test_the_header_may_hold_quoted_newlines(tmp_path: Path) -> None:
    names = put(tmp_path, a='"a ""x""\n\ny",b\n1,2\n', b='"a ""x""\n\ny",b\n3,4\n')
    assert combine(tmp_path, "out.csv", *names).returncode == 0
    assert (tmp_path / "out.csv").read_text() == '"a ""x""\n\ny",b\n1,2\n3,4\n'


@pytest.mark.parametrize(
    "other", ["a,c\n3,4\n", "a\n3\n", "a,b,c\n3,4,5\n", "a,b\r\n3,4\r\n", "a", "\n", "a,b;\n"]
)
def test_the_first_input_with_another_header_is_named(tmp_path: Path, other: str) -> None:
    names = put(tmp_path, a="a,b\n1,2\n", b="a,b\n1,2\n", odd=other, d="z\n")
    done = combine(tmp_path, "out.csv", *names)
    assert_refused(done, tmp_path, "./odd.csv: its header is not that of ./a.csv")


def test_a_short_input_that_continues_like_the_header_is_named(tmp_path: Path) -> None:
    names = put(tmp_path, a='"\n"\n', b='"\n', c='"\n"\n')
    done = combine(tmp_path, "out.csv", *names)
    assert_refused(done, tmp_path, "./b.csv: its header is not that of ./a.csv")


def test_a_header_that_never_ends_is_refused(tmp_path: Path) -> None:
    names = put(tmp_path, a='"a,b\n1,2\n')
    assert_refused(combine(tmp_path, "out.csv", *names), tmp_path, "./a.csv: has no whole header")


def test_an_empty_input_is_named(tmp_path: Path) -> None:
    names = put(tmp_path, a="a\n", b="")
    assert_refused(combine(tmp_path, "out.csv", *names), tmp_path, "./b.csv: is empty")


def test_a_missing_input_is_named(tmp_path: Path) -> None:
    names = put(tmp_path, a="a\n")
    done = combine(tmp_path, "out.csv", *names, "not here.csv", "")
    assert_refused(done, tmp_path, "./not here.csv: no such file")
    assert_refused(combine(tmp_path, "out.csv", *names, ""), tmp_path, ": no such file")


def test_a_folder_or_pipe_is_no_input(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for name in ("folder", "pipe"):
        done = combine(tmp_path, "out.csv", name)
        assert_refused(done, tmp_path, f"./{name}: not a file that can be read")


def test_the_output_cannot_be_an_input(tmp_path: Path) -> None:
    names = put(tmp_path, a="a\n1\n", b="a\n2\n")
    (tmp_path / "same.csv").symlink_to("b.csv")
    done = combine(tmp_path, str(tmp_path / "same.csv"), *names)
    assert_refused(done, tmp_path, "./b.csv: is also the output")
    assert (tmp_path / "b.csv").read_text() == "a\n2\n"


def test_without_input_nothing_is_written_and_it_is_said(tmp_path: Path) -> None:
    done = combine(tmp_path, "out.csv")
    assert done.returncode == 0
    assert done.stderr == "combine.sh: no input, so nothing is written\n"
    assert list(tmp_path.iterdir()) == []


def test_hostile_names_are_but_names(tmp_path: Path) -> None:
    names = ["-n", "--", "-", "a b", "'\"$(id);*", "new\nline", "x=1", "é", "~", "\\"]
    for number, name in enumerate(names):
        (tmp_path / name).write_text(f"a\n{number}\n")
    expected = "a\n" + "".join(f"{number}\n" for number in range(len(names)))
    for output in ("-out", "o u\nt", str(tmp_path / "$out")):
        assert combine(tmp_path, output, *names).returncode == 0
        assert (tmp_path / output).read_text() == expected
    listed = b"".join(os.fsencode(name) + b"\0" for name in names)
    assert combine(tmp_path, "listed", stdin=listed).returncode == 0
    assert (tmp_path / "listed").read_text() == expected


def test_names_that_are_no_text_are_names(tmp_path: Path) -> None:
    name = os.fsdecode(b"\xff.csv")
    (tmp_path / name).write_text("a\n1\n")
    assert combine(tmp_path, "out.csv", stdin=b"\xff.csv\0\xff.csv").returncode == 0
    assert (tmp_path / "out.csv").read_text() == "a\n1\n1\n"


@pytest.mark.exhaustive
def test_ten_thousand_inputs_take_few_processes(tmp_path: Path) -> None:
    inputs = tmp_path / "inputs"
    inputs.mkdir()
    for number in range(10_000):
        (inputs / f"{number}.csv").write_text(f"a\n{number}\n")
    listed = b"".join(b"inputs/%d.csv\0" % number for number in range(10_000))
    before = next_pid()
    assert combine(tmp_path, "out.csv", stdin=listed).returncode == 0
    assert next_pid() - before < 2000  # other processes of the machine count, too
    rows = (tmp_path / "out.csv").read_text().split("\n")
    assert rows == ["a", *map(str, range(10_000)), ""]


def next_pid() -> int:
    with subprocess.Popen(["true"]) as process:
        return process.pid


def test_an_output_that_exists_is_replaced_whole(tmp_path: Path) -> None:
    names = put(tmp_path, a="a\n1\n", out="old\n" * 1000)
    assert combine(tmp_path, "out.csv", names[0]).returncode == 0
    assert (tmp_path / "out.csv").read_text() == "a\n1\n"


def test_a_failure_keeps_the_output_that_exists(tmp_path: Path) -> None:
    names = put(tmp_path, a="a\n1\n", b="b\n1\n")
    (tmp_path / "out.csv").write_text("old\n")
    assert combine(tmp_path, "out.csv", *names).returncode == 1
    assert (tmp_path / "out.csv").read_text() == "old\n"
    assert len(list(tmp_path.iterdir())) == 3


def test_the_output_cannot_be_a_folder_or_lie_in_none(tmp_path: Path) -> None:
    names = put(tmp_path, a="a\n1\n")
    (tmp_path / "folder").mkdir()
    done = combine(tmp_path, "folder", *names)
    assert (done.returncode, done.stderr) == (1, "combine.sh: ./folder: is a directory\n")
    assert combine(tmp_path, "nowhere/out.csv", *names).returncode == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.csv", "folder"]


@pytest.mark.parametrize(("umask", "mode"), [("022", 0o644), ("077", 0o600), ("002", 0o664)])
def test_the_umask_sets_the_permissions(tmp_path: Path, umask: str, mode: int) -> None:
    names = put(tmp_path, a="a\n1\n")
    script = ("bash", "-c", f'umask {umask}; exec bash "$@"', "bash", str(SCRIPT))
    assert combine(tmp_path, "out.csv", *names, script=script).returncode == 0
    assert (tmp_path / "out.csv").stat().st_mode & 0o777 == mode


def test_a_full_disk_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    names = put(tmp_path, a="a\n" + "x" * 100_000 + "\n")
    script = ("bash", "-c", 'trap "" XFSZ; ulimit -f 8; exec bash "$@"', "bash", str(SCRIPT))
    done = combine(tmp_path, "out.csv", *names, script=script)
    assert done.returncode != 0
    assert "File too large" in done.stderr
    assert list(tmp_path.iterdir()) == [tmp_path / "a.csv"]


def test_a_disk_without_room_has_an_exit_code_of_its_own_and_nothing_is_left(
    tmp_path: Path,
) -> None:
    (name,) = put(tmp_path, a="a\n" + "x\n" * 1_000_000)
    with mounted(tmp_path / "small", "size=1m"):
        done = combine(tmp_path, "small/out.csv", name)
        assert (done.returncode, list((tmp_path / "small").iterdir())) == (75, [])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_it_and_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with subprocess.Popen(
        ["bash", str(SCRIPT), "out.csv"],
        cwd=tmp_path,
        stdin=subprocess.PIPE,  # never closed: it waits for names
        env={**os.environ, "TMPDIR": str(scratch)},
        start_new_session=True,
        bufsize=0,
    ) as running:
        assert running.stdin is not None
        # Before both have begun, bash may lose a signal to the process that it is just forking.
        while not {"cat", "sed"} <= set(commands_below(running.pid)):
            assert running.poll() is None
        os.killpg(running.pid, number)
        assert running.wait() == 128 + number
    assert list(scratch.iterdir()) == []
    assert list(tmp_path.iterdir()) == [scratch]


def test_the_output_is_synced_before_it_has_its_name_and_its_folder_after(tmp_path: Path) -> None:
    (name,) = put(tmp_path, a="a\n1\n")
    (tmp_path / "bin").mkdir()
    sync = tmp_path / "bin" / "sync"
    held = '$(cat "$2" out.csv 2>/dev/null | tr "\\n" " ")'
    sync.write_text(f'#!/bin/sh\necho "$2: {held}" >> synced\n')
    sync.chmod(0o755)
    script = ("env", f"PATH={sync.parent}:{os.environ['PATH']}", "bash", str(SCRIPT))

    assert combine(tmp_path, "out.csv", name, script=script).returncode == 0

    partial, folder = (tmp_path / "synced").read_text().splitlines()
    assert re.fullmatch(r"\./\.out\.csv\.\w+: a 1 ", partial)  # whole, and without its name
    assert folder == ".: a 1 "  # of the output: a folder cannot be read


def commands_below(pid: int) -> Iterator[str]:
    """Name what the descendants of a process run; those that end meanwhile are left out."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        yield Path(f"/proc/{pid}/comm").read_text().strip()
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            yield from commands_below(int(child))


def test_help_is_given(tmp_path: Path) -> None:
    assert "usage: combine.sh OUTPUT" in combine(tmp_path, "--help").stdout
    assert combine(tmp_path).returncode == 2
