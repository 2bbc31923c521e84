import csv
import functools
import gzip
import hashlib
import io
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from csv_io.errors import TableError
from ds_flow.core.errors import InputError
from ds_flow.core.manifest import Rejected
from ds_flow.core.paths import output_stems
from ds_flow.core.plan import Options, Plan, PlannedFile
from ds_flow.core.program import CHECKOUT
from ds_flow.core.reading import Encodings, SourceOptions
from ds_flow.work.batch import Batch
from ds_flow.work.fingerprint import code_fingerprint
from ds_flow.work.results import Result, Results
from moments import LinkAndFolder, at_every_moment, chain, moved_too_deep
from rights import NOBODY, no_rights, public_folder
from steps import job_exit, process_job, transform
from steps.transform import Transform, gives_back, load
from steps.user_code import OwnCode

SCRIPT = CHECKOUT / "flows" / "steps" / "process_job.py"
CELL = st.text(st.characters(codec="utf-8", exclude_characters="\0"))
GOOD = b"name,score\nAnn,007\nBob,NA\n"


@dataclass
class PlannedBatch:
    """A root with an inbox, and one batch of the files that were put there."""

    root: Path
    transform: str = "transforms:transform"
    delimiter: str = "auto"
    tag: str = "a tag"
    required: tuple[str, ...] = ()
    hidden: tuple[str, ...] = ()
    encoding: Encodings = "utf-8"
    sources: tuple[SourceOptions, ...] = ()
    files: dict[str, str | None] = field(default_factory=dict)  # path -> planned hash

    def put(self, name: str, content: bytes, *, known: bytes | None = None) -> Path:
        """Write a file; `known` is the content that the batch was formed with."""
        path = self.root / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return self.plan(name, content if known is None else known)

    def plan(self, name: str, known: bytes | None) -> Path:
        self.files[f"data/{name}"] = None if known is None else hashlib.sha256(known).hexdigest()
        return self.root / "data" / name

    def code(self, text: str) -> None:
        """Give the project a transform of its own."""
        module = f"transform_{hashlib.sha256(str(self.root).encode()).hexdigest()[:12]}"
        self.root.joinpath(f"{module}.py").write_text(text)
        self.transform = f"{module}:transform"

    def arguments(self) -> list[str]:
        options = Options(
            project_name="test",
            root=str(self.root),
            output_dir=str(self.root / "out"),
            log_dir=str(self.root / "log"),
            inbox=str(self.root / "data"),
            tag=self.tag,
            delimiter=self.delimiter,
            encoding=self.encoding,
            for_=self.sources,
            transform=self.transform,
            required_columns=self.required,
            hide_columns=self.hidden,
        )
        files = tuple(
            PlannedFile(path=path, version=1, sha256=sha256, size_bytes=1)
            for path, sha256 in self.files.items()
        )
        plan = Plan(
            batch="0123456789", trigger="arrival", formed_at="", files=files, options=options
        )
        work = Batch.create(self.root / "out", plan).folder
        return [str(work), str(work / "results/x"), f"0-{len(files) - 1}"]

    def run(self) -> int:
        return process_job.main(self.arguments())

    @property
    def results(self) -> Results:
        return Results(self.root / "out/.work/0123456789/results/x")

    def verdict(self, name: str) -> Result | Rejected | None:
        return self.results.get(output_stems(self.files)[f"data/{name}"])

    def aside(self, name: str) -> Rejected:
        verdict = self.verdict(name)
        assert isinstance(verdict, Rejected)
        return verdict

    def result(self, name: str) -> Result:
        verdict = self.verdict(name)
        assert isinstance(verdict, Result)
        return verdict

    def rows(self, name: str) -> list[list[str]]:
        with (self.results.folder / self.result(name).output).open(newline="") as stream:
            return list(csv.reader(stream, strict=True))

    def tables(self) -> list[str]:
        return sorted(path.name for path in self.results.folder.glob("*.csv"))


@pytest.fixture
def project(tmp_path: Path) -> Iterator[PlannedBatch]:
    path = list(sys.path)
    yield PlannedBatch(tmp_path)
    sys.path[:] = path


# --------------------------------------------------------------------------- required columns


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ("name,class", "column 'score' is missing"),
        (
            "name,Score ",
            "column 'score' is missing, but 'Score ' is there, which differs only in case, blanks",
        ),
        ("Name,points", "column 'score' is missing; column 'na me' is missing, but 'Name' is"),
    ],
)
def test_a_file_without_a_required_column_is_set_aside_with_a_reason_that_names_it(
    project: PlannedBatch, header: str, reason: str
) -> None:
    project.required = ("score", "na me") if header.startswith("Name") else ("score",)
    project.put("student_a.csv", f"{header}\nAnn,1\n".encode())
    project.put("student_b.csv", b"score,na me\n1,Bob\n")
    assert project.run() == 0
    assert project.aside("student_a.csv").reason.startswith(f"csv.required_columns: {reason}")
    assert (project.aside("student_a.csv").line, project.aside("student_a.csv").cause) == (
        1,
        "rejected",
    )
    assert project.result("student_b.csv").rows == 1


# --------------------------------------------------------------------------- hidden columns

QUENTIN = "Quentin"
FAILURES = {
    "an exception": "raise ValueError(f'bad: {frame.Name[0]}')",
    "its cause": "frame.Name.astype(int)",
    "an exit": "raise SystemExit(frame.Name[0])",
    "no table": "return frame.Name",
    "a strange column": "return frame.rename(columns={'Name': ''})",
    "too little memory": "raise MemoryError(frame.Name[0]) from ValueError(frame.Name[0])",
}


@pytest.mark.parametrize("code", FAILURES.values(), ids=FAILURES.keys())
def test_what_a_failure_says_is_left_out_if_a_column_is_hidden(
    project: PlannedBatch, code: str, capfd: pytest.CaptureFixture[str]
) -> None:
    project.hidden = ("name",)
    project.code(f"def transform(frame):\n    {code}\n    return frame\n")
    project.put("student_a.csv", f"id,Name\n1,{QUENTIN}\n".encode())
    if project.run() == 0:
        reason = project.aside("student_a.csv").reason
        assert QUENTIN not in reason
        assert "privacy.hide_columns" in reason or "not a DataFrame" in reason
    printed = "".join(capfd.readouterr())
    assert QUENTIN not in printed
    assert "line 2" in printed or code.startswith("return")  # where it failed is told


def test_what_a_failure_says_of_a_file_without_a_hidden_column_is_told(
    project: PlannedBatch,
) -> None:
    project.hidden = ("name",)
    project.code("def transform(frame):\n    raise ValueError(frame.score[0])\n")
    project.put("student_a.csv", b"score\n17\n")
    assert project.run() == 0
    assert "ValueError: 17" in project.aside("student_a.csv").reason


def test_what_another_reader_says_of_a_file_is_left_out_if_columns_are_hidden() -> None:
    error = TableError(f"CSV parse error: {QUENTIN}", 3)
    assert error.without_quotes() is error
    error.__cause__ = ValueError()
    assert QUENTIN not in error.without_quotes().reason
    assert error.without_quotes().line == 3


# --------------------------------------------------------------------------- good files


def test_a_good_file_comes_out_with_its_cells_and_three_columns_more(project: PlannedBatch) -> None:
    project.put("student_a.csv", GOOD)
    before = datetime.now(UTC).replace(microsecond=0)
    assert project.run() == 0
    header, *rows = project.rows("student_a.csv")
    assert header == ["name", "score", "processed_at", "source_file", "tag"]
    assert [row[:2] for row in rows] == [["Ann", "007"], ["Bob", "NA"]]
    assert {tuple(row[3:]) for row in rows} == {("data/student_a.csv", "a tag")}
    (instant,) = {datetime.fromisoformat(row[2]) for row in rows}
    assert before <= instant <= datetime.now(UTC)


def test_the_result_tells_what_was_read_and_what_was_written(project: PlannedBatch) -> None:
    project.put("student_a.csv", GOOD)
    assert project.run() == 0
    result = project.result("student_a.csv")
    output = (project.results.folder / result.output).read_bytes()
    assert result == Result(
        path="data/student_a.csv",
        version=1,
        sha256=hashlib.sha256(GOOD).hexdigest(),
        bytes=len(GOOD),
        rows=2,
        columns=("name", "score", "processed_at", "source_file", "tag"),
        output=result.output,
        output_sha256=hashlib.sha256(output).hexdigest(),
        output_bytes=len(output),
        content_sha256=result.content_sha256,
        header=("name", "score"),
        empty=(0, 0),
        rows_read=2,
        profile=result.profile,
        transform=str(CHECKOUT / "flows" / "transforms.py"),
        delimiter=",",
        encoding="utf-8",
        format="csv",
    )
    assert project.tables() == [result.output]


def test_the_result_tells_the_delimiter_and_what_was_odd_about_the_input(
    project: PlannedBatch,
) -> None:
    project.put("student_a.csv", b"sep=;\nname;score\nAnn;1")
    assert project.run() == 0
    result = project.result("student_a.csv")
    assert (result.rows, result.delimiter) == (1, ";")
    assert result.notes == (
        "its first line, sep=;, was obeyed and left out",
        "its last line has no line end; perhaps it was cut off",
    )


def test_the_same_file_processed_again_has_the_same_content_but_for_the_time(
    tmp_path: Path,
) -> None:
    def content(name: str, text: bytes, tag: str) -> str:
        project = PlannedBatch(tmp_path / name, tag=tag)
        project.put("student_a.csv", text)
        assert project.run() == 0
        return project.result("student_a.csv").content_sha256

    first = content("first", GOOD, tag="spring")
    assert content("again", GOOD, tag="spring") == first
    assert content("tagged", GOOD, tag="autumn") != first
    assert content("longer", GOOD + b"x,1\n", tag="spring") != first


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(st.lists(st.lists(CELL, min_size=2, max_size=2), max_size=5), st.sampled_from(",;\t|"))
def test_any_text_survives_the_way_through_the_script(
    tmp_path_factory: pytest.TempPathFactory, rows: list[list[str]], delimiter: str
) -> None:
    project = PlannedBatch(tmp_path_factory.mktemp("way"), delimiter=delimiter)
    path = project.plan("student_a.csv", None)
    path.parent.mkdir()
    with path.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream, delimiter=delimiter).writerows([["a", "b"], *rows])
    assume(not path.read_bytes().rstrip(b"\r\n ").endswith(b"\x1a"))  # there it is no data
    assert project.run() == 0
    assert [row[:2] for row in project.rows("student_a.csv")] == [["a", "b"], *rows]


def test_a_header_without_rows_is_a_good_file(project: PlannedBatch) -> None:
    project.put("student_a.csv", b"name,score\n")
    assert project.run() == 0
    assert project.result("student_a.csv").rows == 0
    assert len(project.rows("student_a.csv")) == 1


def test_a_file_of_unknown_hash_is_taken_as_it_is(project: PlannedBatch) -> None:
    project.put("student_a.csv", GOOD)
    project.plan("student_a.csv", None)
    assert project.run() == 0
    assert project.result("student_a.csv").sha256 == hashlib.sha256(GOOD).hexdigest()


@pytest.mark.parametrize("name", ["student_ 'a'; -rf.csv", "-rf.csv", "a\nb.csv", "ü\\x.csv"])
def test_a_hostile_name_is_but_a_name(project: PlannedBatch, name: str) -> None:
    project.put("plain.csv", GOOD)
    (project.root / "data" / name).write_bytes(GOOD)
    path = f"data/{name}".replace("\\", "\\\\").replace("\n", "\\x0a")
    project.files[path] = None
    assert project.run() == 0
    verdict = project.results.get(output_stems(project.files)[path])
    assert isinstance(verdict, Result)
    with (project.results.folder / verdict.output).open(newline="") as stream:
        assert {row[3] for row in list(csv.reader(stream))[1:]} == {f"data/{name}"}


def test_a_link_is_followed_to_its_file(project: PlannedBatch) -> None:
    path = project.plan("student_link.csv", GOOD)
    path.parent.mkdir()
    path.with_name("elsewhere.csv").write_bytes(GOOD)
    path.symlink_to("elsewhere.csv")
    assert project.run() == 0
    assert project.result("student_link.csv").rows == 2


@pytest.mark.parametrize("known", [None, GOOD])
def test_a_link_swapped_in_leads_nowhere_outside_the_inbox(
    project: PlannedBatch, known: bytes | None
) -> None:
    (project.root / "secret.csv").write_bytes(GOOD)
    path = project.plan("student_link.csv", known)
    path.parent.mkdir()
    path.symlink_to("../secret.csv")
    assert project.run() == 0
    aside = project.aside("student_link.csv")
    assert (aside.cause, aside.reason) == ("unreadable", "a symbolic link that leaves the inbox")


def test_a_file_outside_the_inbox_is_not_taken_for_one_that_is_gone(project: PlannedBatch) -> None:
    (project.root / "old").mkdir()
    (project.root / "old" / "student_a.csv").write_bytes(GOOD)
    with (
        pytest.raises(InputError, match=r"it is outside .*data"),
        process_job.opened(project.root / "old" / "student_a.csv", str(project.root / "data")),
    ):
        pass


def test_a_link_that_becomes_a_folder_at_any_moment_concerns_itself_alone(tmp_path: Path) -> None:
    pair = LinkAndFolder(tmp_path / "data")

    def attempt() -> None:
        with suppress(InputError), process_job.opened(pair.link, str(tmp_path / "data")) as stream:
            assert stream.read() == pair.CONTENT

    assert at_every_moment(pair.prepare, attempt, pair.swap) > 10


def test_a_file_that_is_moved_too_deep_at_any_moment_concerns_itself_alone(tmp_path: Path) -> None:
    folder, aside = tmp_path / "data" / "sub", tmp_path / "aside"

    def prepare() -> None:
        shutil.rmtree(aside, ignore_errors=True)
        shutil.rmtree(folder, ignore_errors=True)
        for made in (folder, aside):
            made.mkdir(parents=True)
        (folder / "student_a.csv").write_bytes(GOOD)

    def attempt() -> None:
        path = folder / "student_a.csv"
        with suppress(InputError), process_job.opened(path, str(tmp_path / "data")) as stream:
            assert stream.read() == GOOD

    assert at_every_moment(prepare, attempt, lambda: moved_too_deep(folder, aside)) > 10


def test_a_chain_of_very_many_links_is_set_aside_and_the_rest_goes_on(
    project: PlannedBatch,
) -> None:
    chain(project.plan("student_chain.csv", GOOD))
    project.put("student_good.csv", GOOD)
    assert project.run() == 0
    aside = project.aside("student_chain.csv")
    assert (aside.cause, aside.reason) == ("unreadable", "Too many levels of symbolic links")
    assert project.result("student_good.csv").rows == 2


def test_files_of_one_name_in_two_folders_have_two_results(project: PlannedBatch) -> None:
    project.put("one/student_a.csv", GOOD)
    project.put("two/student_a.csv", b"x\n1\n")
    assert project.run() == 0
    assert project.result("one/student_a.csv").rows == 2
    assert project.result("two/student_a.csv").rows == 1


# --------------------------------------------------------------------------- formats


def packed_as_workbook(rows: list[list[object]]) -> bytes:
    file = io.BytesIO()
    pd.DataFrame(rows[1:], columns=rows[0]).to_excel(file, index=False)
    return file.getvalue()


def packed_as_parquet(rows: list[list[object]]) -> bytes:
    file = io.BytesIO()
    pd.DataFrame(rows[1:], columns=rows[0]).to_parquet(file)
    return file.getvalue()


TABLE: list[list[object]] = [["name", "score"], ["Ann", 7], ["Zoë", 8]]
SAME = "name,score\nAnn,7\nZoë,8\n".encode()
FORMATS: dict[str, tuple[bytes, str, str, str]] = {
    "student_a.csv": (SAME, "csv", "utf-8", ","),
    "student_a.csv.gz": (gzip.compress(SAME), "csv.gz", "utf-8", ","),
    "student_a.csv.zst": (pa.compress(SAME, "zstd", asbytes=True), "csv.zst", "utf-8", ","),
    "student_a.xlsx": (packed_as_workbook(TABLE), "xlsx", "", ""),
    "student_a.parquet": (packed_as_parquet(TABLE), "parquet", "", ""),
}


def test_a_file_of_each_format_has_the_same_cells_and_a_name_of_its_own(
    project: PlannedBatch,
) -> None:
    for name, (content, *_) in FORMATS.items():
        project.put(name, content)
    assert project.run() == 0
    for name, (content, *used) in FORMATS.items():
        result = project.result(name)
        assert [row[:2] for row in project.rows(name)] == [
            ["name", "score"],
            ["Ann", "7"],
            ["Zoë", "8"],
        ]
        assert [result.format, result.encoding, result.delimiter] == used
        assert (result.bytes, result.sha256) == (len(content), hashlib.sha256(content).hexdigest())
        assert (result.rows, result.header, result.notes) == (2, ("name", "score"), ())
        assert project.rows(name)[1][3] == f"data/{name}"
    assert len(project.tables()) == len(FORMATS)


@pytest.mark.parametrize("name", FORMATS)
def test_an_output_is_named_after_its_input_without_its_endings(
    project: PlannedBatch, name: str
) -> None:
    project.put(name, FORMATS[name][0])
    assert project.run() == 0
    assert re.fullmatch(r"student_a\.[0-9a-f]{8}\.csv", project.result(name).output)


@pytest.mark.parametrize("name", FORMATS)
def test_a_file_of_any_format_that_has_changed_is_not_kept(
    project: PlannedBatch, name: str
) -> None:
    project.put(name, FORMATS[name][0], known=b"other")
    assert project.run() == 0
    assert project.aside(name).cause == "changed"
    assert project.tables() == []
    assert not [path for path in project.results.folder.iterdir() if path.suffix != ".aside"]


@pytest.mark.parametrize("name", [name for name in FORMATS if name != "student_a.csv"])
def test_a_file_of_any_packed_format_that_is_cut_off_is_rejected_in_words(
    project: PlannedBatch, name: str
) -> None:
    content = FORMATS[name][0][:-3]
    project.put(name, content)
    assert project.run() == 0
    aside = project.aside(name)
    assert aside.cause == "rejected"
    assert aside.sha256 == hashlib.sha256(content).hexdigest()
    assert re.search("damaged|cut off|cannot be read as Parquet", aside.reason)


@pytest.mark.parametrize("name", ["student_a.xlsx", "student_a.parquet"])
def test_a_full_disk_under_the_copy_of_a_file_is_no_files_fault(
    project: PlannedBatch, name: str
) -> None:
    project.put(name, FORMATS[name][0])
    limited = ["bash", "-c", 'ulimit -f 1; exec "$@"', "bash", sys.executable, str(SCRIPT)]
    done = subprocess.run(
        [*limited, *project.arguments()], capture_output=True, text=True, check=False
    )
    assert done.returncode == job_exit.OWN_DISK
    assert done.stderr == "process: OSError: [Errno 27] File too large\n"
    assert project.verdict(name) is None


@pytest.mark.exhaustive
def test_the_limits_of_what_is_unpacked_are_the_plans(project: PlannedBatch) -> None:
    content = gzip.compress(b"a,b\n" + b"1,2\n" * 20_000_000)
    project.put("student_a.csv.gz", content)
    assert project.run() == 0
    assert "raise csv.max_unpacked_ratio" in project.aside("student_a.csv.gz").reason


# --------------------------------------------------------------------------- encodings


MANY = b"name,city\n" + b"Ann,Rome\n" * 2_000_000  # of several blocks


def test_the_first_encoding_that_the_whole_file_is_in_is_used(project: PlannedBatch) -> None:
    project.encoding = ("utf-8", "cp1252")
    project.put("student_a.csv", "name\nJosé\n".encode())
    project.put("student_b.csv", "name\nJosé €\n".encode("cp1252"))
    assert project.run() == 0
    assert [project.rows(f"student_{name}.csv")[1][0] for name in "ab"] == ["José", "José €"]
    used = [project.result(f"student_{name}.csv").encoding for name in "ab"]
    assert used == ["utf-8", "cp1252"]


@pytest.mark.exhaustive
def test_a_late_block_in_another_encoding_makes_the_whole_file_read_again(
    project: PlannedBatch,
) -> None:
    project.encoding = ("utf-8", "cp1252")
    content = "name,city\nÃ©,x\n".encode() + MANY[10:] + b"Jos\xe9,Nice\n"
    project.put("student_a.csv", content)
    assert project.run() == 0
    result = project.result("student_a.csv")
    assert (result.encoding, result.rows) == ("cp1252", 2_000_002)
    assert result.sha256 == hashlib.sha256(content).hexdigest()
    rows = project.rows("student_a.csv")
    # Nothing is left of the first reading, in which the first row was other text.
    assert rows[1][:2] == ["Ã©".encode().decode("cp1252"), "x"]
    assert rows[-1][:2] == ["José", "Nice"]
    assert project.tables() == [result.output]
    assert result.profile is not None
    assert (result.rows_read, result.empty) == (2_000_002, (0, 0))


def test_a_file_in_none_of_the_encodings_is_refused_with_what_each_one_met(
    project: PlannedBatch,
) -> None:
    project.encoding = ("utf-8", "ascii", "cp1252")
    project.put("student_a.csv", b"name\nJos\xe9\n\x81\n")
    assert project.run() == 0
    aside = project.aside("student_a.csv")
    assert aside.sentence == (
        "it is in no encoding of those that are set: line 2: byte 0xe9 is not utf-8;"
        " line 2: byte 0xe9 is not ascii; line 3: byte 0x81 is not cp1252;"
        " set csv.encoding (csv.for sets it for one source)"
    )
    assert project.tables() == []
    assert aside.sha256 == project.files["data/student_a.csv"]


def test_text_in_pairs_of_bytes_without_a_mark_is_read_if_the_list_names_it(
    project: PlannedBatch,
) -> None:
    project.encoding = ("utf-8", "utf-16-le", "cp1252")
    project.put("student_a.csv", "name,city\nJosé,Nice\n".encode("utf-16-le"))
    assert project.run() == 0
    assert project.rows("student_a.csv")[1][:2] == ["José", "Nice"]


def test_a_source_has_settings_of_its_own_and_the_first_entry_counts(
    project: PlannedBatch,
) -> None:
    inbox = project.root / "data"
    project.sources = (
        SourceOptions(pattern=f"{inbox}/student_uk_*.csv", encoding="cp1252", delimiter=";"),
        SourceOptions(pattern=f"{inbox}/student_*.csv", first_column="row"),
        SourceOptions(pattern=f"{inbox}/student_de_*.csv", encoding="utf-16-le"),
    )
    project.put("student_uk_a.csv", b"name;price, \xa3\nAnn;1,50\n")
    project.put("student_de_a.csv", b",name\n0,Ann\n")
    project.put("other.csv", "name\nJosé\n".encode("cp1252"))
    assert project.run() == 0
    assert project.rows("student_uk_a.csv")[0][:2] == ["name", "price, £"]
    assert project.rows("student_de_a.csv")[0][:2] == ["row", "name"]
    assert project.result("student_de_a.csv").encoding == "utf-8"
    assert "byte 0xe9 is not utf-8" in project.aside("other.csv").reason


def test_a_hidden_value_is_in_no_profile_whatever_the_encoding_is(project: PlannedBatch) -> None:
    project.encoding, project.hidden = ("utf-8", "cp1252"), ("naïve",)
    project.put("student_a.csv", "naïve,city\nJosé,Nice\n".encode("cp1252"))
    assert project.run() == 0
    profile = str(project.result("student_a.csv").profile)
    assert "Nice" in profile
    assert "José" not in profile


# --------------------------------------------------------------------------- no table


OTHERWISE = "; if it is in another encoding, set csv.encoding (csv.for sets it for one source)"


@pytest.mark.parametrize(
    ("content", "line", "reason"),
    [
        (b"", None, "the file is empty"),
        (b"\x7fELF\x02\x01\x01\x00\x00\x00", 1, "a NUL byte"),
        ("name\né\n".encode("latin-1"), 2, f"byte 0xe9 is not utf-8{OTHERWISE}"),
        (b"a,b\n1,2\n3\n", 3, "cells: 1 in this row, 2 in the header"),
        (b"a,b\n1,2,3\n", 2, "cells: 3 in this row, 2 in the header"),
        (b"a,a\n1,2\n", 1, "the header names 'a' twice"),
        (b'a,b\n1,"2\n3\n', 2, "a quote is never closed"),
        (b"a,tag\n1,2\n", 1, "it has a column 'tag'; the name is taken"),
        (b"a,processed_at\n", 1, "it has a column 'processed_at'; the name is taken"),
    ],
)
def test_what_is_no_table_is_rejected_for_good_and_the_rest_goes_on(
    project: PlannedBatch,
    capsys: pytest.CaptureFixture[str],
    content: bytes,
    line: int | None,
    reason: str,
) -> None:
    project.put("student_bad.csv", content)
    project.put("student_good.csv", GOOD)
    assert project.run() == 0
    assert project.aside("student_bad.csv") == Rejected(
        path="data/student_bad.csv",
        version=1,
        sha256=hashlib.sha256(content).hexdigest(),
        cause="rejected",
        reason=reason,
        line=line,
    )
    assert project.tables() == [project.result("student_good.csv").output]
    said = capsys.readouterr()
    place = "" if line is None else f"line {line}: "
    assert said.err == f"data/student_bad.csv: {place}{reason}\n"
    assert said.out == "1 processed, 1 set aside, 0 had a result\n"


def test_nothing_is_left_of_a_large_file_that_is_no_table_at_its_end(project: PlannedBatch) -> None:
    project.put("student_a.csv", b"a\n" + 40 * (b"x" * 2**20 + b"\n") + b"1,2\n")
    assert project.run() == 0
    assert project.aside("student_a.csv").line == 42
    assert project.tables() == []


# --------------------------------------------------------------------------- unread


def test_a_half_written_file_has_changed_and_is_not_rejected(project: PlannedBatch) -> None:
    project.put("student_a.csv", b'name,score\nAnn,"00', known=GOOD)
    assert project.run() == 0
    assert project.aside("student_a.csv").cause == "changed"
    assert project.tables() == []


def test_a_good_file_of_another_content_has_changed_and_nothing_is_kept(
    project: PlannedBatch,
) -> None:
    project.put("student_a.csv", GOOD, known=b"name\n")
    assert project.run() == 0
    assert project.aside("student_a.csv").cause == "changed"
    assert project.tables() == []


def test_a_file_that_changes_while_it_is_read_is_not_kept(project: PlannedBatch) -> None:
    path = project.put("student_a.csv", GOOD)
    project.code(
        "def transform(frame):\n"
        f"    open({str(path)!r}, 'a').write('x')\n"
        "    raise ValueError('which is not the reason')\n"
    )
    project.plan("student_a.csv", None)
    assert project.run() == 0
    assert project.aside("student_a.csv").cause == "changed"
    assert project.tables() == []


def touching(project: PlannedBatch, path: Path) -> None:
    """Let the transform touch the file, and restore its time."""
    project.code(
        "import os\n"
        "def transform(frame):\n"
        f"    os.utime({str(path)!r}, ns=(0, {path.stat().st_mtime_ns}))\n"
        "    return frame\n"
    )


def test_a_rewrite_that_restores_the_time_is_noticed_without_a_hash(project: PlannedBatch) -> None:
    touching(project, project.put("student_a.csv", GOOD))
    project.plan("student_a.csv", None)
    assert project.run() == 0
    assert project.aside("student_a.csv").reason == "it changed while it was read"


def test_a_file_whose_bytes_are_the_batchs_may_be_touched_meanwhile(project: PlannedBatch) -> None:
    touching(project, project.put("student_a.csv", GOOD))
    assert project.run() == 0
    assert project.rows("student_a.csv")[1][:2] == ["Ann", "007"]


def test_a_file_that_is_gone_is_gone(project: PlannedBatch) -> None:
    project.put("student_a.csv", GOOD).unlink()
    project.put("sub/student_b.csv", GOOD)
    shutil.rmtree(project.root / "data/sub")
    (project.root / "data/sub").write_text("a file now")
    assert project.run() == 0
    assert [project.aside(f"{name}.csv").cause for name in ("student_a", "sub/student_b")] == [
        "gone",
        "gone",
    ]


def shard_of(root: Path, planned: PlannedFile) -> process_job.Shard:
    """A job over one file of a project whose inbox is `data`."""
    options = Options(
        project_name="test",
        root=str(root),
        output_dir=str(root / "out"),
        log_dir=str(root / "log"),
        inbox=str(root / "data"),
    )
    plan = Plan(
        batch="0123456789", trigger="rerun", formed_at="", files=(planned,), options=options
    )
    found = load(options.transform, root)
    return process_job.Shard(plan, Results(root / "results"), found, "", OwnCode(root), {})


def test_a_file_that_leaves_the_inbox_at_any_moment_is_read_all_the_same(
    tmp_path: Path,
) -> None:
    inbox, archive = tmp_path / "data", tmp_path / "archive" / "17" / "data"
    planned = PlannedFile(
        path="data/student_a.csv",
        version=1,
        sha256=hashlib.sha256(GOOD).hexdigest(),
        size_bytes=1,
        kept_at="archive/17/data/student_a.csv",
    )
    for folder in (inbox, archive):
        folder.mkdir(parents=True)
    shard = shard_of(tmp_path, planned)

    def prepare() -> None:
        (archive / "student_a.csv").unlink(missing_ok=True)
        (inbox / "student_a.csv").write_bytes(GOOD)

    def leave() -> None:
        (inbox / "student_a.csv").rename(archive / "student_a.csv")

    def attempt() -> None:
        result = shard.process(planned, "a")
        assert isinstance(result, Result), result

    assert at_every_moment(prepare, attempt, leave) > 10
    leave()
    (inbox / "student_a.csv").write_bytes(b"another version\n")
    attempt()


@pytest.mark.parametrize("kind", ["folder", "pipe", "loop", "device"])
def test_what_is_no_regular_file_is_unreadable_and_nothing_waits_for_it(
    project: PlannedBatch, kind: str
) -> None:
    path = project.plan("student_a.csv", GOOD)
    path.parent.mkdir()
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to({"loop": path, "device": Path("/dev/zero")}[kind])
    assert project.run() == 0
    aside = project.aside("student_a.csv")
    assert aside.cause == "unreadable"
    assert aside.reason in {
        "it is not a regular file",
        "Too many levels of symbolic links",
        "a symbolic link that leaves the inbox",
    }


def test_a_file_without_permission_is_unreadable() -> None:
    with public_folder() as root:
        project = PlannedBatch(root)
        project.put("student_a.csv", GOOD)
        project.arguments()  # its work directory is made
        for folder in [root, *root.rglob("*")]:
            folder.chmod(0o777)
            if os.geteuid() == 0:
                os.chown(folder, NOBODY, -1)
        with no_rights(root / "data/student_a.csv"):
            assert project.run() == 0
        assert project.aside("student_a.csv").reason == "Permission denied"


# --------------------------------------------------------------------------- the transform


def test_a_transform_of_the_project_is_used(project: PlannedBatch) -> None:
    project.put("student_a.csv", GOOD)
    project.code(
        "import pandas as pd\n"
        "def transform(frame):\n"
        "    frame['score'] = pd.to_numeric(frame['score'], errors='coerce') / 2\n"
        "    return frame[['score', 'name']][::-1]\n"
    )
    assert project.run() == 0
    assert [row[:2] for row in project.rows("student_a.csv")] == [
        ["score", "name"],
        ["", "Bob"],
        ["3.5", "Ann"],
    ]


def test_an_exception_sets_aside_the_file_that_raised_it_with_its_place(
    project: PlannedBatch,
) -> None:
    project.put("student_a.csv", b"name\nAnn\n")
    project.put("student_b.csv", GOOD)
    project.code("def transform(frame):\n    frame['score']\n    return frame\n")
    assert project.run() == 0
    aside = project.aside("student_a.csv")
    assert aside.cause == "raised"
    assert aside.reason.endswith(": frame['score']: KeyError: 'score'")
    assert aside.sha256 == project.files["data/student_a.csv"]
    assert project.tables() == [project.result("student_b.csv").output]


@pytest.mark.parametrize(
    ("body", "line", "text"),
    [
        ("return frame['score']", 3, "return frame['score']"),
        ("return helper(frame)", 7, "return frame.rename(columns=int)"),
        ("return frame.map(lambda cell: int(cell))", 3, "return frame.map(lambda cell: int(cell))"),
        ("import json; json.loads('{')", 3, "import json; json.loads('{')"),
    ],
)
def test_an_exception_is_told_with_the_line_of_the_projects_own_code(
    project: PlannedBatch,
    capsys: pytest.CaptureFixture[str],
    body: str,
    line: int,
    text: str,
) -> None:
    project.put("student_a.csv", b"name\nAnn\n")
    helper = "def helper(frame):\n    return frame.rename(columns=int)\n"
    project.code(f"\ndef transform(frame):\n    {body}\n\n\n{helper}")

    assert project.run() == 0

    module = project.transform.partition(":")[0]
    assert project.aside("student_a.csv").reason.startswith(f"{module}.py:{line}: {text}: ")
    said = capsys.readouterr().err
    assert "Traceback (most recent call last):" in said
    assert f'{module}.py", line {line}, in ' in said
    assert "process_job.py" not in said
    assert said.splitlines()[-1].startswith("data/student_a.csv: ")


def test_the_line_is_the_projects_and_not_that_of_a_package_in_an_environment_inside_it(
    project: PlannedBatch,
) -> None:
    project.put("student_a.csv", b"name\nAnn\n")
    package = project.root / ".venv" / "lib" / "site-packages"
    package.mkdir(parents=True)
    (package / "afar.py").write_text("def far(frame):\n    return frame['far']\n")
    project.code(
        f"import sys\nsys.path.append({str(package)!r})\nimport afar\n"
        "def transform(frame):\n    return afar.far(frame)\n"
    )

    assert project.run() == 0

    assert ".py:5: return afar.far(frame): KeyError: " in project.aside("student_a.csv").reason


def test_an_exception_in_a_module_beside_the_transform_is_told_with_the_line_there(
    project: PlannedBatch,
) -> None:
    project.put("student_a.csv", b"name\nAnn\n")
    project.code("def transform(frame):\n    from marks import best\n    return best(frame)\n")
    (project.root / "marks.py").write_text("def best(frame):\n    return frame['best']\n")

    assert project.run() == 0

    reason = "marks.py:2: return frame['best']: KeyError: 'best'"
    assert project.aside("student_a.csv").reason == reason


def test_a_syntax_error_in_a_module_that_the_transform_imports_is_told_with_its_place(
    project: PlannedBatch,
) -> None:
    project.put("student_a.csv", GOOD)
    project.code("def transform(frame):\n    import broken\n    return frame\n")
    (project.root / "broken.py").write_text("def best(:\n    pass\n")

    assert project.run() == 0

    assert (
        project.aside("student_a.csv").reason
        == "broken.py:1: def best(:: SyntaxError: invalid syntax"
    )


def test_a_long_line_of_code_is_cut_in_a_reason(project: PlannedBatch) -> None:
    project.put("student_a.csv", GOOD)
    project.code(f"def transform(frame):\n    return frame['{'x' * 10**4}'] + 1 / 0\n")

    assert project.run() == 0

    assert len(project.aside("student_a.csv").reason) < 1000


def test_of_many_files_that_fail_in_one_line_one_traceback_is_printed(
    project: PlannedBatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in "abc":
        project.put(f"student_{name}.csv", f"name\n{name}\n".encode())
    project.code(
        "def transform(frame):\n"
        "    if frame.name[0] == 'c':\n"
        "        raise ValueError('c')\n"
        "    return int(frame.name[0])\n"
    )

    assert project.run() == 0

    said = capsys.readouterr().err
    assert said.count("Traceback (most recent call last):") == 2
    assert "base 10: 'b'" in project.aside("student_b.csv").reason


@pytest.mark.parametrize(
    ("code", "line"),
    [
        (
            "import json\n\nRULES = json.loads('{')\n",
            "3: RULES = json.loads('{'): JSONDecodeError: ",
        ),
        ("import nowhere\n", "1: import nowhere: ModuleNotFoundError: No module named 'nowhere'"),
        ("\ndef transform(:\n", "2: def transform(:: SyntaxError: invalid syntax"),
        (
            "def transform(frame):\nreturn frame\n",
            "2: return frame: IndentationError: expected an ",
        ),
        (
            "raise SystemExit('no licence')\n",
            "1: raise SystemExit('no licence'): SystemExit: no lic",
        ),
    ],
)
def test_a_transform_that_cannot_be_imported_is_told_with_the_line_of_its_own_code(
    project: PlannedBatch, capsys: pytest.CaptureFixture[str], code: str, line: str
) -> None:
    project.put("student_a.csv", GOOD)
    project.code(code)

    assert project.run() == job_exit.SETTINGS

    module = project.transform.partition(":")[0]
    said = capsys.readouterr().err
    assert f'{module}.py", line {line[0]}' in said
    assert "importlib" not in said
    assert f"compute.transform {project.transform}: {module}.py:{line}" in said.splitlines()[-1]
    assert project.verdict("student_a.csv") is None


def test_an_exception_with_a_whole_table_in_it_does_not_fill_the_log(
    project: PlannedBatch, capsys: pytest.CaptureFixture[str]
) -> None:
    project.put("student_a.csv", GOOD)
    project.code("def transform(frame):\n    raise ValueError('x' * 10**6)\n")

    assert project.run() == 0

    said = capsys.readouterr().err
    assert len(said) < 2**15
    assert "raise ValueError('x' * 10**6)" in said


def test_a_secret_in_an_exception_is_masked(
    project: PlannedBatch, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TOKEN", "swordfish")
    monkeypatch.setenv("DS_FLOW_MASK", "TOKEN")
    project.code("import os\ndef transform(frame):\n    raise ValueError(os.environ['TOKEN'])\n")
    project.put("student_a.csv", GOOD)

    assert project.run() == 0

    assert project.aside("student_a.csv").reason.endswith(": ValueError: ***")
    assert "swordfish" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("return [1]", "the transform returned list, not a DataFrame"),
        ("pass", "the transform returned NoneType, not a DataFrame"),
        ("raise SystemExit(0)", ": SystemExit: 0"),
        ("raise ValueError('two\\nlines')", "ValueError: two lines"),
        (
            "return frame[['name', 'name']]",
            "returned something that is not a table: TableError: the header names 'name' twice",
        ),
        ("return frame.iloc[:, :0]", "there is no column"),
        ("return frame.assign(tag='x')", "the transform returned a column 'tag'"),
        (
            r"return frame.assign(odd=['\0'] + [''] * (len(frame) - 1))",
            "the transform returned a NUL byte in column 'odd'",
        ),
        (r"return frame.rename(columns={'name': 'a\0'})", "a NUL byte in column 'a\\x00'"),
        ("return frame.assign(x=chr(0xD800))", "UnicodeEncodeError"),
    ],
)
def test_a_transform_that_returns_no_table_has_raised(
    project: PlannedBatch, body: str, reason: str
) -> None:
    project.put("student_a.csv", GOOD)
    project.code(f"def transform(frame):\n    {body}\n")
    assert project.run() == 0
    aside = project.aside("student_a.csv")
    assert aside.cause == "raised"
    assert reason in aside.reason
    assert "\n" not in aside.reason
    assert project.tables() == []


@pytest.mark.parametrize(
    "body", ["frame.assign(long='\"' * 2**23)", "frame.rename(columns={'name': 'x' * 2**24})"]
)
def test_a_row_that_later_steps_could_not_read_is_not_published(
    project: PlannedBatch, body: str
) -> None:
    project.put("student_a.csv", GOOD)
    project.code(f"def transform(frame):\n    return {body}\n")

    assert project.run() == 0

    assert project.aside("student_a.csv").reason == "a row to publish has over 16 MB"
    assert project.tables() == []


def test_too_little_memory_is_not_the_files_fault(project: PlannedBatch) -> None:
    project.put("student_a.csv", GOOD)
    project.code("def transform(frame):\n    raise MemoryError\n")
    assert project.run() == job_exit.NO_MEMORY
    assert project.verdict("student_a.csv") is None
    assert project.tables() == []


@pytest.mark.parametrize(
    "spec", ["no_such_module:transform", "transforms:nothing", "transforms:pd"]
)
def test_a_transform_that_cannot_be_loaded_is_the_operators_fault(
    project: PlannedBatch, capsys: pytest.CaptureFixture[str], spec: str
) -> None:
    project.put("student_a.csv", GOOD)
    project.transform = spec
    assert project.run() == 78
    assert f"compute.transform {spec}: " in capsys.readouterr().err
    assert project.verdict("student_a.csv") is None


def returned(frame: pd.DataFrame) -> pd.DataFrame:
    """Whatever it says."""
    return frame


def returned_of_two(frame: pd.DataFrame, _other: object = None) -> pd.DataFrame:
    return frame


@functools.wraps(returned)
def around(frame: pd.DataFrame) -> pd.DataFrame:
    return returned(frame).head(1)


class Called:
    __code__ = returned.__code__

    def __call__(self, frame: pd.DataFrame) -> pd.DataFrame:
        return frame.head(1)


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (load("transforms:transform", Path("/nowhere")), True),
        (returned, True),
        (lambda any_name: any_name, True),
        (around, False),
        (returned_of_two, False),
        (Called(), False),
        (lambda *all_of_them: all_of_them, False),
        (lambda *, frame: frame, False),
        (lambda frame: frame.copy(), False),
        (lambda frame: frame[:], False),
        (pd.DataFrame.copy, False),
        (functools.partial(returned), False),
    ],
)
def test_a_function_that_only_returns_what_it_gets_is_known_by_its_code(
    function: Transform, expected: object
) -> None:
    assert gives_back(function) is expected


@pytest.mark.parametrize(
    "content",
    [
        GOOD,
        b"a;b\n1;x\n2;y\n",
        b"a;b\n1;x,z\n",
        b'a,b\n1,"x"\n',
        b"a,b\r\n1,x\r\n",
        b"a,b,\n1,2,\n",
        b"a,b\n\n1,x\n",
        b"a,b\n",
        b"a,b\n1,x",
        b"a,b\n1\n",
        b"a,tag\n1,2\n",
        b"a,b\n" + 3000 * b"1,some text\n",
    ],
)
def test_a_transform_that_changes_nothing_gives_the_same_whether_it_is_called_or_not(
    project: PlannedBatch, content: bytes
) -> None:
    bodies = {"returned": "frame", "copied": "frame.copy()", "cut": "frame.iloc[:]"}
    project.code("".join(f"def {name}(frame): return {bodies[name]}\n" for name in bodies))
    module = project.transform.partition(":")[0]
    project.put("student_a.csv", content)
    found = []
    for name in bodies:
        project.transform = f"{module}:{name}"
        assert project.run() == 0
        verdict, text = project.verdict("student_a.csv"), ""
        if isinstance(verdict, Result):
            text = (project.results.folder / verdict.output).read_text()
            verdict = replace(verdict, output="", output_sha256="")
        found.append((verdict, re.sub("2[0-9-]+T[0-9:+]+", "", text)))  # the time of processing
        shutil.rmtree(project.root / "out")

    assert found[0] == found[1] == found[2]
    assert found[0][0] is not None


def test_pieces_with_unlike_columns_are_the_transforms_fault(tmp_path: Path) -> None:
    pieces = iter([pa.table({"a": ["1"]}), pa.table({"b": ["2"]})])
    with pytest.raises(transform.TransformError, match="unlike columns"):
        process_job.write(pieces, tmp_path / "out.csv", {"tag": ""})


@pytest.mark.parametrize("place", ["flows/transforms.py", "transforms/__init__.py"])
def test_a_projects_own_transform_wins_over_that_of_the_checkout(
    project: PlannedBatch, place: str
) -> None:
    own = project.root / place
    own.parent.mkdir()
    own.write_text("def transform(frame): return frame.assign(own='yes')\n")
    project.put("student_a.csv", GOOD)
    work, *others = project.arguments()
    options = Batch(Path(work)).plan.options
    fingerprint = code_fingerprint(options)

    subprocess.run([sys.executable, str(SCRIPT), work, *others], check=True)

    result = project.result("student_a.csv")
    assert (result.columns[2], result.transform) == ("own", place)
    own.write_text("def transform(frame): return frame\n")
    assert code_fingerprint(options) != fingerprint


def test_the_transform_that_is_shipped_changes_nothing() -> None:
    frame = pd.DataFrame({"a": ["1"]})
    assert transform.load("transforms:transform", CHECKOUT)(frame) is frame


# --------------------------------------------------------------------------- again


def test_a_verdict_that_stands_is_kept(
    project: PlannedBatch, capsys: pytest.CaptureFixture[str]
) -> None:
    project.put("student_a.csv", GOOD)
    project.put("student_b.csv", b"")
    assert project.run() == 0
    verdicts = project.verdict("student_a.csv"), project.verdict("student_b.csv")
    shutil.rmtree(project.root / "data")
    assert project.run() == 0
    assert (project.verdict("student_a.csv"), project.verdict("student_b.csv")) == verdicts
    assert capsys.readouterr().out.splitlines()[-1] == "0 processed, 0 set aside, 2 had a result"


def test_a_file_that_was_not_read_is_judged_again(project: PlannedBatch) -> None:
    path = project.put("student_a.csv", b"half", known=GOOD)
    assert project.run() == 0
    assert project.aside("student_a.csv").cause == "changed"
    path.write_bytes(GOOD)
    assert project.run() == 0
    assert project.result("student_a.csv").rows == 2


def test_a_file_that_raised_is_judged_again(project: PlannedBatch) -> None:
    project.put("student_a.csv", GOOD)
    flag = project.root / "mended"
    project.code(
        "import os\n"
        "def transform(frame):\n"
        f"    if not os.path.exists({str(flag)!r}): raise ValueError\n"
        "    return frame\n"
    )
    assert project.run() == 0
    assert project.aside("student_a.csv").cause == "raised"
    flag.touch()
    assert project.run() == 0
    assert project.result("student_a.csv").rows == 2


def test_only_the_files_of_the_shard_are_judged(project: PlannedBatch) -> None:
    for number in range(5):
        project.put(f"student_{number}.csv", GOOD)
    work, results, _ = project.arguments()
    assert process_job.main([work, results, "1-2"]) == 0
    judged = [project.verdict(f"student_{number}.csv") is not None for number in range(5)]
    assert judged == [False, True, True, False, False]


# --------------------------------------------------------------------------- the script


def test_two_processes_on_one_shard_leave_one_result_a_file(project: PlannedBatch) -> None:
    for number in range(20):
        project.put(f"student_{number}.csv", GOOD)
    command = [sys.executable, str(SCRIPT), *project.arguments()]
    both = [subprocess.Popen(command, cwd="/", stdout=subprocess.DEVNULL) for _ in range(2)]
    assert [one.wait() for one in both] == [0, 0]
    outputs = [project.result(f"student_{number}.csv").output for number in range(20)]
    assert project.tables() == sorted(outputs)


def test_a_full_disk_is_no_files_fault_and_leaves_nothing(project: PlannedBatch) -> None:
    project.put("student_a.csv", b"a\n" + b"x" * 100_000 + b"\n")
    limited = ["bash", "-c", 'ulimit -f 8; exec "$@"', "bash", sys.executable, str(SCRIPT)]
    done = subprocess.run(
        [*limited, *project.arguments()], capture_output=True, text=True, check=False
    )
    assert done.returncode == job_exit.OWN_DISK
    assert done.stderr == "process: OSError: [Errno 27] File too large\n"
    assert project.verdict("student_a.csv") is None
    assert project.tables() == []


def test_a_transform_that_meets_a_full_disk_is_no_files_fault(
    project: PlannedBatch, capsys: pytest.CaptureFixture[str]
) -> None:
    project.put("student_a.csv", GOOD)
    project.code(
        "def transform(frame):\n    with open('/dev/full', 'w') as file:\n        file.write('x')\n"
    )
    assert project.run() == job_exit.NO_ROOM
    assert "No space left on device" in capsys.readouterr().err
    assert project.verdict("student_a.csv") is None


@pytest.mark.parametrize("arguments", [[], ["a", "b"], ["a", "b", "1"], ["a", "b", "x-y"]])
def test_wrong_arguments_are_told(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    assert process_job.main(arguments) == job_exit.USAGE
    assert "usage" in capsys.readouterr().err
