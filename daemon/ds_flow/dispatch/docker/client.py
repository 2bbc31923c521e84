"""Calls of the container engine's command, docker or podman, each with a time limit."""

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from ds_flow.core import DispatchError, DockerSite
from ds_flow.dispatch.commands import Answer, call, print_note
from ds_flow.dispatch.docker import texts
from ds_flow.dispatch.docker.texts import Container, Image

PULL_SECONDS = 3600  # an image may be large
SAID_CHARACTERS = 200  # of an answer that is none

Result = TypeVar("Result")


class EngineSilentError(DispatchError):
    """The engine gave no answer that can be relied on."""


def _understood(read: Callable[[str], Result], text: str) -> Result:
    """What the engine's words mean. Raises EngineSilentError where they are those of no engine."""
    try:
        return read(text)
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        said = " ".join(text[:SAID_CHARACTERS].split())
        raise EngineSilentError(f"its answer is not that of an engine: {said!r}") from error


@dataclass(slots=True)
class DockerClient:
    """One engine. The client remembers since when the engine has been silent."""

    site: DockerSite
    environ: Mapping[str, str]
    _is_podman: bool | None = None
    _silent_since_s: float | None = None
    _last_error: str = ""

    @property
    def is_podman(self) -> bool:
        """Whether it is podman, under whatever name."""
        if self._is_podman is None:
            self._is_podman = self.call("--version").out.startswith("podman")
        return self._is_podman

    def call(self, *argv: str, limit_s: float | None = None, output: int | None = None) -> Answer:
        """One call of the command. Raises EngineSilentError if the engine did not answer."""
        limit_s = limit_s or self.site.command_seconds
        argv = (self.site.command, *argv)
        answer = call(argv, limit_s, cwd=Path("/"), environ=self.environ, output=output)
        if answer.timed_out:
            raise EngineSilentError(f"{self.site.command} {argv[1]}: no answer in {limit_s:g} s")
        has_answered = answer.exit_code == 0 or texts.ANSWERED.search(answer.err)
        if not has_answered and texts.SILENT.search(answer.err):
            raise EngineSilentError(" ".join(answer.err.split()))
        if has_answered or texts.NOT_THERE.search(answer.err):
            self._silent_since_s = None
        return answer

    def unless_silent(self, calls: Callable[[], Result]) -> Result | None:
        """The result of these calls; None while the engine is silent, which is printed once."""
        try:
            return calls()
        except EngineSilentError as error:
            self._last_error = str(error)
            if self._silent_since_s is None:
                self._silent_since_s = time.monotonic()
                print_note("docker", f"{error}; asked again later")
            return None

    @property
    def silent(self) -> str:
        """Why the engine gave no answer last time, or ""."""
        return self._last_error if self._silent_since_s is not None else ""

    @property
    def is_lost(self) -> bool:
        """Whether the engine has been silent for too long to count its containers as alive."""
        since_s = self._silent_since_s
        limit_s = self.site.unknown_minutes * 60
        return since_s is not None and time.monotonic() - since_s > limit_s

    @property
    def lost(self) -> str:
        """The reason to give for that."""
        minutes = self.site.unknown_minutes
        return f"{self.site.command}: the engine was silent for {minutes:g} minutes"

    def memory_mb(self) -> int | None:
        """The memory of the engine's host. None if the engine does not say."""
        of = ".Host.MemTotal" if self.is_podman else ".MemTotal"
        said = self.call("info", f"--format={{{{{of}}}}}").out.strip()
        return int(said) // 2**20 if said.isdecimal() and int(said) else None

    def inspect(self, names: Collection[str]) -> list[Container]:
        """Those of these containers that exist. Raises EngineSilentError if that is not certain."""
        answer = self.call("container", "inspect", *names)
        lines = answer.err.splitlines()
        if answer.exit_code and not all(map(texts.NOT_THERE.search, lines)):
            raise EngineSilentError(answer.text)
        return _understood(texts.containers_in, answer.out)

    def containers_of(self, folder: Path) -> dict[str, str]:
        """The containers of a round's folder in any state: name to id."""
        of_folder = f"--filter=label={texts.LABEL}.folder={texts.mark_of(folder)}"
        listed = ("ps", "--all", "--no-trunc", of_folder, "--format={{.Names}} {{.ID}}")
        answer = self.call(*listed)
        if answer.exit_code:
            raise EngineSilentError(answer.text)
        return _understood(texts.listed_in, answer.out)

    def find_image(self, name: str) -> Image | None:
        """The image of this name on this host, if there is one."""
        answer = self.call("image", "inspect", "--", name)
        if answer.exit_code == 0:
            return _understood(texts.image_in, answer.out)
        if texts.NOT_THERE.search(answer.err):
            return None
        raise DispatchError(f"image {name}: {texts.refusal(answer.text)}")

    def image(self, name: str) -> Image:
        """The image of this name, pulled if necessary. Raises DispatchError if that fails."""
        found = self.find_image(name) if self.site.pull != "always" else None
        return found or self._pull(name)

    def _pull(self, name: str) -> Image:
        if self.site.pull == "never":
            raise DispatchError(f"no image {name} on this host, and compute.docker.pull is never")
        print_note("docker", f"pulling the image {name}")
        pulled = self.call("pull", "--quiet", "--", name, limit_s=PULL_SECONDS)
        found = self.find_image(name) if pulled.exit_code == 0 else None
        if found is None:
            why = texts.refusal(pulled.text)
            raise DispatchError(f"no image {name} on this host, and it cannot be pulled: {why}")
        return found


def unobtainable(client: DockerClient, image: str) -> str:
    """Why an image can be neither found nor pulled, or "". This pulls nothing.

    Raises DispatchError if the engine does not answer.
    """
    if client.find_image(image):
        return ""
    if client.site.pull == "never":
        return "is not to be pulled (compute.docker.pull is never)"
    answer = client.call("manifest", "inspect", "--", image)
    said = " ".join(answer.err.split())
    return "" if answer.exit_code == 0 else f"cannot be pulled: {said}"
