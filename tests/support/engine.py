"""A real container engine for tests, the one that answers or one of their own, and its images."""

import io
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Self

import pytest
from conftest import require

from ds_flow.core.program import CHECKOUT
from project import until

SMALL, BASE, FULL = "ds-flow-test/small", "ds-flow-test/python", "ds-flow-test/full"
DAEMON = "ds-flow-test/daemon"
APPLETS = (
    *("cat", "chown", "env", "head", "id", "ls", "mkdir", "mknod", "mount", "printf", "rmdir"),
    *("sh", "sleep", "tail", "touch", "tr", "true", "wc", "xargs"),
)


def docker(*arguments: str, stdin: bytes = b"") -> str:
    """What the docker command answers."""
    done = subprocess.run(["docker", *arguments], input=stdin, capture_output=True, check=False)
    assert done.returncode == 0, f"docker {' '.join(arguments)}: {done.stderr.decode()}"
    return done.stdout.decode().strip()


def names_of(label: str) -> list[str]:
    """The containers that have a label, in whatever state."""
    return docker("ps", "--all", f"--filter=label={label}", "--format={{.Names}}").split()


def _answers() -> bool:
    command = ["docker", "version"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


@contextmanager
def engine() -> Iterator[None]:
    """A running engine, and this process's docker command talks to it."""
    require("docker")
    if _answers():
        yield
        return
    with own_engine():
        yield


@contextmanager
def own_engine() -> Iterator["Dockerd"]:
    """An engine that nobody else uses."""
    dockerd = require("dockerd")
    if os.getuid():
        pytest.skip("only root can start a container engine")
    root = Path(tempfile.mkdtemp(prefix="ds-flow-engine-"))  # a socket's path has to be short
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("DOCKER_HOST", f"unix://{root}/socket")
        try:
            with Dockerd(dockerd, root) as started:
                yield started
        finally:
            _remove(root)


class Dockerd:
    """An engine with roots of its own, without a network, that a test may end and start again."""

    def __init__(self, program: str, root: Path) -> None:
        self.root = root
        self._command = [
            program,
            f"--host=unix://{root}/socket",
            f"--data-root={root}/data",
            f"--exec-root={root}/exec",
            f"--pidfile={root}/pid",
            *("--bridge=none", "--iptables=false", "--ip6tables=false"),
        ]
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        with (self.root / "log").open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log)
        until(f"dockerd answered; see {self.root}/log", self._is_up)

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait()

    def kill(self) -> None:
        """Let it die without a word."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        # containerd dies with it. Where nobody reaps it, its pid would be taken for a live one.
        (self.root / "exec" / "containerd" / "containerd.pid").unlink(missing_ok=True)

    def _is_up(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self.root / "log").read_text()[-2000:]
        return _answers()


def _remove(root: Path) -> None:
    for process in _processes_of(root):  # of an engine that was killed
        os.kill(process, signal.SIGKILL)
    mounted = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    for place in sorted((one for one in mounted if one.startswith(f"{root}/")), reverse=True):
        subprocess.run(["umount", "--lazy", place], check=False)
    shutil.rmtree(root)


def _processes_of(root: Path) -> Iterator[int]:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # it has ended meanwhile
            if f"{root}/".encode() in path.read_bytes():
                yield int(path.parent.name)


# --------------------------------------------------------------------------- images


def small_image() -> str:
    """An image of busybox and bash, in the engine of the moment."""
    return _small_image(os.environ.get("DOCKER_HOST"))


@cache
def _small_image(_engine: str | None) -> str:
    busybox, bash = require("busybox"), require("bash")
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        tar.add(os.path.realpath(busybox), "bin/busybox")
        for name in APPLETS:
            _link(tar, f"bin/{name}", "busybox")
        tar.add(os.path.realpath(bash), "bin/suid/bash", filter=_setuid)
        add_programs(tar, [bash])
    docker("import", "-", SMALL, stdin=archive.getvalue())
    return SMALL


def add_programs(tar: tarfile.TarFile, programs: Iterable[str], *modules: str) -> None:
    """Add programs to /bin, and what the loader wants for them and for modules of theirs."""
    found = list(programs)
    for program in found:
        tar.add(os.path.realpath(program), f"bin/{Path(program).name}")
    for library in sorted(libraries_of(*found, *modules)):
        tar.add(os.path.realpath(library), library.lstrip("/"))


def libraries_of(*files: str) -> set[str]:
    """The shared libraries that programs are linked with."""
    listed = subprocess.run(["ldd", *files], capture_output=True, text=True, check=False).stdout
    found = set(re.findall(r"(?:=> |^\s+)(/\S+) \(0x", listed, re.MULTILINE))
    return {path for path in found if not path.startswith(sys.prefix)}  # those come with packages


def _setuid(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.mode, member.uid, member.gid = 0o6755, 0, 0
    return member


def full_image() -> str:
    """An image that runs every stage, as `make image` builds it, on this interpreter."""
    return _full_image(os.environ.get("DOCKER_HOST"))


@cache
def _full_image(_engine: str | None) -> str:
    _import_base("")
    return _made("image", FULL)


def daemon_image() -> str:
    """An image of the daemon itself, as `make container` builds it, on this interpreter."""
    return _daemon_image(os.environ.get("DOCKER_HOST"))


@cache
def _daemon_image(_engine: str | None) -> str:
    _import_base("chown nice tee timeout ls id sleep")
    return _made("container", DAEMON)


def _import_base(further: str) -> None:
    """Import an image with this interpreter, and with the programs of a small Linux."""
    programs = (
        "awk bash cat chmod cmp cut env head mkdir mktemp mv rm sed sh sync tail tr wc xargs yes"
    )
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        _add_python(tar, map(require, f"{programs} {further}".split()))
    docker("import", "-", BASE, stdin=archive.getvalue())


def _made(target: str, image: str) -> str:
    """Let make build an image on that."""
    build = ["make", target, f"BASE={BASE}", f"IMAGE={image}"]
    done = subprocess.run(build, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return image


def _add_python(tar: tarfile.TarFile, programs: Iterable[str]) -> None:
    """Add this interpreter and its library where they are: it finds the one beside the other."""
    program = os.path.realpath(sys.executable)
    library = Path(sysconfig.get_path("stdlib"))
    packages = Path(sysconfig.get_path("purelib"))
    modules = [*library.glob("lib-dynload/*.so"), *packages.glob("pyarrow/*.so*")]
    add_programs(tar, programs, program, *map(str, modules))
    tar.add(program)
    tar.add(library, filter=_without_packages)
    _link(tar, "bin/python3", program)


def _without_packages(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    left_out = {"site-packages", "dist-packages", "test", "idlelib", "ensurepip", "lib2to3"}
    name = Path(member.name).name
    return None if name in left_out or name.startswith("config-") else member


def _link(tar: tarfile.TarFile, name: str, target: str) -> None:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = tarfile.SYMTYPE, target
    tar.addfile(member)
