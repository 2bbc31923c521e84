"""Real file systems in memory, as small as a test wants them."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

OTHER_PLACES = (Path("/dev/shm"), Path("/tmp"), Path("/var/tmp"), Path(__file__).parent)  # noqa: S108


@contextmanager
def mounted(folder: Path, options: str) -> Iterator[None]:
    """Let a folder be a file system of its own. Skips the test where nothing can be mounted."""
    folder.mkdir(exist_ok=True)
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)],
        capture_output=True,
        check=False,
    )
    if done.returncode:
        pytest.skip("no file system can be mounted here")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@contextmanager
def other_disk(folder: Path) -> Iterator[Path]:
    """Make a folder where no link to this one can lead. Skips the test where there is none."""
    device = folder.stat().st_dev
    places = [place for place in OTHER_PLACES if place.is_dir() and place.stat().st_dev != device]
    if not places:
        pytest.skip("no second file system here")
    made = Path(tempfile.mkdtemp(dir=places[0]))
    try:
        yield made
    finally:
        shutil.rmtree(made)


def fill(folder: Path, leave_bytes: int = 0) -> Path:
    """Leave no more room on a file system; the file that takes the rest."""
    filler = folder / "filler"
    filled = subprocess.run(
        ["dd", "if=/dev/zero", f"of={filler}", "bs=4k"], capture_output=True, check=False
    )
    assert b"No space left" in filled.stderr
    if leave_bytes:
        os.truncate(filler, filler.stat().st_size - leave_bytes)
    return filler
