"""What the line is measured against: the least script that does the same work on two cores.

It watches a folder, and once no file has been closed for as long as it is told, reads each new file
with pandas, writes it with the same columns added, and writes all of them as one. It knows no
crash, no second version, no bad file and no record.
"""

import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock

import pandas as pd
from watchdog.events import FileClosedEvent, FileSystemEventHandler
from watchdog.observers import Observer


class Closed(FileSystemEventHandler):
    """The files that were closed and not yet worked on, and when the last of them was."""

    def __init__(self) -> None:
        self.paths: set[Path] = set()
        self.lock = Lock()
        self.at_s = 0.0

    def on_closed(self, event: FileClosedEvent) -> None:
        with self.lock:
            self.paths.add(Path(str(event.src_path)))
            self.at_s = time.monotonic()

    def take(self) -> list[Path]:
        with self.lock:
            paths, self.paths = sorted(self.paths), set()
        return paths


def work(paths: list[Path], out: Path, run_id: str) -> None:
    """Process each file, then combine them."""
    frames = []
    for path in paths:
        frame = pd.read_csv(path, dtype=str, keep_default_na=False)
        frames.append(
            frame.assign(processed_at=str(datetime.now(UTC)), source_file=path.name, tag="")
        )
        frames[-1].to_csv(out / f"processed_{path.stem}_{run_id}.csv", index=False)
    combined = out / f".final_combined_{run_id}.csv"
    pd.concat(frames).to_csv(combined, index=False)
    combined.rename(out / combined.name[1:])


def main() -> None:
    """Watch the first folder, write to the second one; the third argument is the quiet time."""
    inbox, out, quiet_s = Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3])
    closed, observer = Closed(), Observer()
    observer.schedule(closed, str(inbox))
    observer.start()
    (out / "ready").touch()
    while True:
        time.sleep(0.005)  # noqa: TID251 - a plain script polls
        if closed.paths and time.monotonic() - closed.at_s >= quiet_s:
            work(closed.take(), out, str(time.time_ns()))


if __name__ == "__main__":
    main()
