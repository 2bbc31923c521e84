"""How files come into an inbox: each way that teams have, with real programs where they exist."""

import os
import random
import shutil
import subprocess
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from chaos.drops import HARM, Content, Journal, regular_files

HOSTILE = (
    "student_-rf.csv",
    "student_$(reboot).csv",
    "student_; exit 1 ;.csv",
    "student_'\".csv",
    "student_ two  spaces .csv",
    "student_\\x41\\.csv",
    "student_é\u202e名前.csv",
    f"student_{'long' * 50}.csv",
    "student_*.csv",
    "student_=1+1.csv",
    "student_{run}%s.csv",
)
UNSPEAKABLE = ("student_new\nline.csv", "student_\udcff.csv", "student_\x1b[2J.csv")


@dataclass(slots=True)
class Dropper:
    """Puts contents into the inbox and notes each one; `staged` is on another file system."""

    inbox: Path
    staged: Path
    journal: Journal
    rng: random.Random
    slow: list[threading.Thread] = field(default_factory=list)

    # ------------------------------------------------------------------ what is dropped

    def stage(self, count: int, *, names: Sequence[str] = (), fault: float = 0.02) -> Path:
        """A folder of new contents, most of them good, under these names or new ones."""
        folder = self.staged / f"d{self.journal.made}"
        folder.mkdir(parents=True)
        for number in range(count):
            name = names[number] if names else f"student_{self.journal.made + 1:06}.csv"
            content = self._content(fault)
            (folder / name).write_bytes(content.text)
            self.journal.standing[name] = content.sha256
            self.journal.versions += 1
        return folder

    def _content(self, fault: float) -> Content:
        if self.rng.random() < fault:
            return self.journal.bad()
        return self.journal.good(self.rng.choice((1, 2, 5, 40)))

    def some(self, count: int) -> list[str]:
        """Names of ours that are in the inbox now and do not grow: two writers mix."""
        growing = ("_slow.csv", "_goes.csv")
        found = [path.name for path in regular_files(self.inbox)]
        found = [name for name in found if not name.endswith(growing) and HARM not in name]
        return self.rng.sample(found, min(count, len(found)))

    # ------------------------------------------------------------------ ways

    def cp(self, count: int) -> None:
        self._run("cp", "--", *self._files(self.stage(count)), self.inbox)

    def mv(self, count: int) -> None:
        """Across file systems, which is a copy; then by one rename each."""
        self._run("mv", "--", *self._files(self.stage(count)), self.inbox)
        near = self.inbox / ".staged"
        near.mkdir(exist_ok=True)
        for path in self._files(self.stage(count)):
            shutil.move(path, near / path.name)
            (near / path.name).rename(self.inbox / path.name)

    def rsync(self, count: int) -> None:
        self._run("rsync", "-a", f"{self.stage(count)}/", f"{self.inbox}/")

    def scp(self, count: int) -> None:
        """The scp protocol to a real `scp -t`, through a local shell in ssh's place."""
        transport = self.staged / "transport"
        transport.write_text('#!/bin/sh\nfor last; do :; done\nexec sh -c "$last"\n')
        transport.chmod(0o755)
        files = self._files(self.stage(count))
        self._run("scp", "-qO", "-S", str(transport), "--", *files, f"here:{self.inbox}")

    def append_slowly(self, count: int) -> None:
        """Files that stay open while they grow; they are never seen in parts."""
        for _ in range(min(count, 5)):
            content = self.journal.good(200)
            path = self.inbox / f"student_{content.number:06}_slow.csv"
            self.journal.standing[path.name] = content.sha256
            self._aside(_write_in_goes, path, content.text, "held open")
            self.journal.versions += 1

    def append_in_goes(self, count: int) -> None:
        """Files that are closed and opened again while they grow: each part may be a version."""
        for _ in range(min(count, 5)):
            content = self.journal.good(60)
            self.journal.grown.add(content.number)
            path = self.inbox / f"student_{content.number:06}_goes.csv"
            self._aside(_write_in_goes, path, content.text, "")
            self.journal.versions += 1

    def replace(self, count: int) -> None:
        """New contents under known names: by renames, and by writing over them in place."""
        names = self.some(count)
        for number, path in enumerate(self._files(self.stage(len(names), names=names))):
            if number % 2:
                near = self.inbox / f".{path.name}"[:250]
                shutil.copyfile(path, near)
                near.rename(self.inbox / path.name)
            else:
                shutil.copyfile(path, self.inbox / path.name)

    def delete(self, count: int) -> None:
        for name in self.some(max(1, count // 20)):
            self.journal.standing.pop(name, None)
            (self.inbox / name).unlink(missing_ok=True)

    def touch(self, count: int) -> None:
        for name in self.some(count):
            (self.inbox / name).touch()

    def drop_again(self, count: int) -> None:
        """The same contents once more, as new files."""
        for name in self.some(count):
            near = self.inbox / f".{name}"[:250]
            with suppress(FileNotFoundError):  # published and put away by now
                shutil.copyfile(self.inbox / name, near)
                near.rename(self.inbox / name)

    def hostile(self, _count: int) -> None:
        names = list(HOSTILE + UNSPEAKABLE)
        for path in self._files(self.stage(len(names), names=names, fault=0)):
            shutil.copyfile(path, self.inbox / path.name)

    def bad(self, count: int) -> None:
        self._run("cp", "--", *self._files(self.stage(max(1, count // 10), fault=1)), self.inbox)

    def odd(self, _count: int) -> None:
        """What is no file, or leads out of the inbox."""
        number = self.journal.made
        (self.inbox / f"student_{number}_folder.csv").mkdir(exist_ok=True)
        if not (self.inbox / f"student_{number}_fifo.csv").exists():
            os.mkfifo(self.inbox / f"student_{number}_fifo.csv")
            outside = self.inbox.parent / "outside.csv"  # a dropper may write through the link
            outside.touch()
            (self.inbox / f"student_{number}_link.csv").symlink_to(outside)

    def burst(self, count: int) -> None:
        """Many at once, faster than anyone reads events."""
        for _ in range(count):
            content = self.journal.good(1)
            name = f"student_{content.number:06}.csv"
            self.journal.standing[name] = content.sha256
            (self.inbox / name).write_bytes(content.text)
            self.journal.versions += 1

    def wait(self) -> None:
        """Until the slow ones are done."""
        for thread in self.slow:
            thread.join()

    def _aside(self, act: Callable[..., None], *args: object) -> None:
        self.slow.append(threading.Thread(target=act, args=args))
        self.slow[-1].start()

    def _files(self, folder: Path) -> list[Path]:
        return sorted(folder.iterdir())

    def _run(self, *words: str | Path) -> None:
        subprocess.run(list(map(str, words)), check=True, stdin=subprocess.DEVNULL)


def _write_in_goes(path: Path, text: bytes, held: str) -> None:
    never = threading.Event()
    step = len(text) // 4 + 1
    file = path.open("ab")
    for start in range(0, len(text), step):
        if not held:
            file.close()
            file = path.open("ab")
        file.write(text[start : start + step])
        file.flush()
        never.wait(0.7)
    file.close()


WAYS: dict[str, Callable[[Dropper, int], None]] = {
    "cp": Dropper.cp,
    "mv": Dropper.mv,
    "rsync": Dropper.rsync,
    "scp": Dropper.scp,
    "append slowly": Dropper.append_slowly,
    "append in goes": Dropper.append_in_goes,
    "replace": Dropper.replace,
    "delete": Dropper.delete,
    "touch": Dropper.touch,
    "drop again": Dropper.drop_again,
    "hostile names": Dropper.hostile,
    "bad files": Dropper.bad,
    "no files": Dropper.odd,
    "burst": Dropper.burst,
}
