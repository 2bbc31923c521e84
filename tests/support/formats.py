"""Files of other formats, read as a job reads them, and the programs that make some of them."""

import functools
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from csv_io.allowance import Allowance
from csv_io.inputs import records_of
from csv_io.table import Source, read_tables, to_frame
from ds_flow.core import Reading

SUPPORT = Path(__file__).parent
ROOTS = (SUPPORT, *(SUPPORT.parents[1] / name for name in ("flows", "daemon")))


@dataclass
class Read:
    """What a file was read as."""

    rows: list[list[str]]
    notes: list[str]


def read(path: Path, reading: Reading | None = None, mb: int = 1000, ratio: int = 200) -> Read:
    """Read a whole file, with these limits."""
    with path.open("rb", buffering=0) as stream:
        source = Source(stream)
        allowance = Allowance(source.size_bytes, mb, ratio)
        records = records_of(source, path.name, reading or Reading(), allowance, path.parent)
        frames = [to_frame(table) for table in read_tables(records)]
        source.drain()
        assert source.bytes == path.stat().st_size
    rows = [row for frame in frames for row in frame.to_numpy().tolist()]
    return Read([list(frames[0].columns), *rows], list(records.notes))


def read_apart(path: Path, mb: int = 1000, ratio: int = 200) -> tuple[str, float]:
    """Read in a process of its own: what it said, and how many MiB of memory it took at most."""
    code = (
        "import sys; from pathlib import Path; from formats import peak_mb, said;"
        " print(said(Path(sys.argv[1]), *map(int, sys.argv[2:]))); print(peak_mb())"
    )
    done = run_apart(code, path, mb, ratio)
    text, _, memory = done.stdout.strip().rpartition("\n")
    assert done.returncode == 0, done.stdout
    return text, float(memory)


def run_apart(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run code that may import what tests import."""
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, ROOTS))},
    )


def peak_mb() -> float:
    """The most memory that this program had. What `wait4` tells includes that of its parent."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def said(path: Path, mb: int, ratio: int) -> str:
    """Read a file and keep nothing of it; give the number of its rows, or why it is refused."""
    rows = 0
    with path.open("rb", buffering=0) as stream:
        source = Source(stream)
        try:
            allowance = Allowance(source.size_bytes, mb, ratio)
            records = records_of(source, path.name, Reading(), allowance, path.parent)
            for block in records:
                rows += block.rows
        except Exception as error:  # noqa: BLE001 - whatever it is, the test looks at it
            return f"{type(error).__name__}: {error}"
    return f"{rows} rows"


def zstd(content: bytes, *arguments: str) -> bytes:
    """Pack as zstd(1) does."""
    command = ["zstd", "-q", "-c", *arguments]
    return subprocess.run(command, input=content, capture_output=True, check=True).stdout


def gzip(content: bytes, *arguments: str) -> bytes:
    """Pack as gzip(1) does."""
    command = ["gzip", "-c", *arguments]
    return subprocess.run(command, input=content, capture_output=True, check=True).stdout


@functools.cache
def office_home() -> tempfile.TemporaryDirectory[str]:
    """A folder for the settings of LibreOffice, which goes with this process."""
    return tempfile.TemporaryDirectory(prefix="ds-flow-office-")


def converted(sources: Sequence[Path], kind: str, into: Path, reader: str = "") -> None:
    """Let LibreOffice save files as another kind."""
    subprocess.run(
        [
            "soffice",
            "--headless",
            f"-env:UserInstallation=file://{office_home().name}",
            *([f"--infilter={reader}"] if reader else []),
            "--convert-to",
            kind,
            "--outdir",
            str(into),
            *map(str, sources),
        ],
        check=True,
        capture_output=True,
    )


MAIN = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
REFS = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
PACKAGE = "http://schemas.openxmlformats.org/package/2006/relationships"


def workbook(
    path: Path,
    rows: str,
    *,
    sheets: str = '<sheet name="One" sheetId="1" r:id="r1"/>',
    properties: str = "",
    formats: Sequence[str] = (),
    texts: str = "",
    more: dict[str, str] | None = None,
) -> Path:
    """Write a workbook by hand: `rows` is what is in its `sheetData`."""
    codes = "".join(
        f'<numFmt numFmtId="{164 + number}" formatCode="{code}"/>'
        for number, code in enumerate(formats)
    )
    styles = '<xf numFmtId="0"/>' + "".join(
        f'<xf numFmtId="{164 + number}"/>' for number in range(len(formats))
    )
    kinds = {"r1": ("worksheet", "sheet1"), "r2": ("worksheet", "sheet2")}
    kinds |= {"r3": ("styles", "styles"), "r4": ("sharedStrings", "texts")}
    relations = "".join(
        f'<Relationship Id="{key}" Type="{REFS}/{kind}" Target="{name}.xml"/>'
        for key, (kind, name) in kinds.items()
    )
    parts = {
        "_rels/.rels": f'<Relationships xmlns="{PACKAGE}"><Relationship Id="a"'
        f' Type="{REFS}/officeDocument" Target="xl/book.xml"/></Relationships>',
        "xl/_rels/book.xml.rels": f'<Relationships xmlns="{PACKAGE}">{relations}</Relationships>',
        "xl/book.xml": f'<workbook xmlns="{MAIN}" xmlns:r="{REFS}">{properties}'
        f"<sheets>{sheets}</sheets></workbook>",
        "xl/styles.xml": f'<styleSheet xmlns="{MAIN}"><numFmts>{codes}</numFmts>'
        f'<cellStyleXfs><xf numFmtId="14"/></cellStyleXfs><cellXfs>{styles}</cellXfs></styleSheet>',
        "xl/texts.xml": f'<sst xmlns="{MAIN}">{texts}</sst>',
        "xl/sheet1.xml": sheet(rows),
        **(more or {}),
    }
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in parts.items():
            archive.writestr(name, text)
    return path


def sheet(rows: str) -> str:
    """A sheet with these rows."""
    return f'<worksheet xmlns="{MAIN}"><sheetData>{rows}</sheetData></worksheet>'
