"""bsub's arguments and `#BSUB` lines, read into a submission."""

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from lsf_emulator.config import UNIT_FOR_LIMITS, Config
from lsf_emulator.words import Refused, split

UNITS_KB = {"K": 1, "KB": 1, "M": 2**10, "MB": 2**10, "G": 2**20, "GB": 2**20, "T": 2**30}

ARRAY = re.compile(r"^(?P<name>[^\[\]]*)\[(?P<indices>[^\]]*)\](?:%(?P<limit>\d+))?$")
RANGE = re.compile(r"^(\d+)(?:-(\d+)(?::(\d+))?)?$")
MEMORY = re.compile(r"^(\d+)([A-Za-z]*)$")

ENV_CHARS_LIMIT = 4094
NAME_CHARS_LIMIT = 4094
INDICES_CHARS_LIMIT = 255


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """One accepted bsub: what all elements of an array have in common."""

    name: str
    indices: tuple[int, ...]  # (0,) where it is no array
    parallel: int | None  # elements at once, of `%limit`
    queue: str
    is_default_queue: bool
    slots: int
    memory_limit_kb: int | None
    run_limit_minutes: int | None
    project: str
    cwd: str
    stdin: str
    stdout: str
    stderr: str
    overwrites: bool
    reports: bool
    env: Mapping[str, str]
    script: str

    @property
    def is_array(self) -> bool:
        return self.indices != (0,)


def read_submission(
    argv: Sequence[str], stdin: str, cwd: str, env: Mapping[str, str], config: Config
) -> Submission:
    """Raises: Refused with LSF's reason."""
    options, words = split(argv)
    script = stdin if not words else command_line(words)
    for line in [] if words else stdin.splitlines():
        if line.startswith("#BSUB"):
            # the command line wins over the script
            options = split(shlex.split(line[5:], comments=True))[0] | options
    if not script.strip():
        raise Refused("No command is specified. Job not submitted.\n")

    def last(name: str, default: str = "") -> str:
        return options.get(name, [default])[-1]

    name, indices, parallel = read_name(last("J", _default_name(script, words)), config.max_array)
    if "K" in options:
        why = "Job array doesn't support -K option" if any(indices) else "-K is not emulated"
        raise Refused(f"{why}. Job not submitted.\n")
    memory_limit_kb = read_memory(last("M"), config) if "M" in options else None
    _check_resources(options.get("R", []), config)  # after -M, as bsub reads it
    return Submission(
        name=name,
        indices=indices,
        parallel=parallel,
        queue=read_queue(last("q", config.default_queue), config),
        is_default_queue="q" not in options,
        slots=int(last("n", "1").split(",")[0]),
        memory_limit_kb=memory_limit_kb,
        run_limit_minutes=read_minutes(last("W")) if "W" in options else None,
        project=last("P", "default"),
        cwd=last("cwd", cwd),
        stdin=last("i", "/dev/null"),
        stdout=last("oo", last("o")),
        stderr=last("eo", last("e")),
        overwrites="oo" in options or "eo" in options,
        reports="N" not in options,
        env=forwarded(env, last("env", "all")),
        script=script,
    )


def command_line(words: Iterable[str]) -> str:
    """The words as one shell line, as bsub joins them: empty ones vanish, quotes are lost."""
    return " ".join(f'"{word}"' if " " in word else word for word in words if word) + "\n"


def _default_name(script: str, words: Sequence[str]) -> str:
    text = command_line(words) if words else script
    return text.strip().splitlines()[0].replace("[", "").replace("]", "")


def read_name(text: str, max_array: int) -> tuple[str, tuple[int, ...], int | None]:
    """A -J argument: the name, the indices, and how many elements may run at once."""
    if len(text) > NAME_CHARS_LIMIT:
        raise Refused("Bad job name. Job not submitted.\n")
    if "[" not in text:
        return text, (0,), None
    found = ARRAY.match(text)
    if not found or not re.fullmatch(r"[A-Za-z0-9._-]*", found["name"]):
        raise Refused(f"{text}: Bad job name. Job not submitted.\n")
    if len(found["indices"]) > INDICES_CHARS_LIMIT:
        raise Refused("Job array index error. Job not submitted.\n")
    indices = read_indices(found["indices"])
    if max(indices) > max_array:
        raise Refused("Job array index too large. Job not submitted.\n")
    return found["name"], indices, int(found["limit"]) if found["limit"] else None


def read_indices(text: str) -> tuple[int, ...]:
    """`1,3-5,10-20:2` as numbers. Raises: Refused for anything else, and for a 0."""
    indices: set[int] = set()
    for part in text.split(","):
        found = RANGE.match(part.strip())
        if not found:
            raise Refused("Job array index error. Job not submitted.\n")
        first, last, step = (int(group) if group else None for group in found.groups())
        assert first is not None
        indices.update(range(first, (last or first) + 1, step or 1))
    if not indices or min(indices) < 1:
        raise Refused("Job array index error. Job not submitted.\n")
    return tuple(sorted(indices))


def read_queue(name: str, config: Config) -> str:
    if name not in config.queues:
        raise Refused(f"{name}: No such queue. Job not submitted.\n")
    return name


def read_memory(text: str, config: Config) -> int:
    """A limit in KB: without a suffix in the site's unit, which is KB unless it says otherwise."""
    found = MEMORY.match(text)
    suffix = found[2].upper() if found else ""
    if not found or (suffix and (config.dialect == "openlava" or suffix not in UNITS_KB)):
        # Spelt so in the stock text of openlava and its forks.
        raise Refused(f"{text}: MEMLIMT value should be a positive integer. Job not submitted.\n")
    limit_kb = int(found[1]) * UNITS_KB[suffix or config.conf.get(UNIT_FOR_LIMITS, "KB")]
    if 0 < config.queue_memory_mb * 1024 < limit_kb:
        raise Refused("MEMLIMT: Cannot exceed queue's hard limit(s). Job not submitted.\n")
    return limit_kb


def _check_resources(requirements: Iterable[str], config: Config) -> None:
    """Units inside rusage came with IBM's 10.1.0.2; older ones know numbers alone."""
    for text in requirements:
        old = config.dialect == "openlava" and re.search(r"mem\s*=\s*\d+[A-Za-z]", text)
        if old or text.count("[") != text.count("]"):
            raise Refused("Bad resource requirement syntax. Job not submitted.\n")


def read_minutes(text: str) -> int:
    """`[hours:]minutes`, perhaps followed by a host: no seconds."""
    parts = text.partition("/")[0].split(":")
    if len(parts) > 2 or not all(part.isdecimal() for part in parts):
        raise Refused(f"{text}: Bad RUNLIMIT. Job not submitted.\n")
    return sum(int(part) * scale for part, scale in zip(reversed(parts), (1, 60), strict=False))


def forwarded(env: Mapping[str, str], choice: str) -> dict[str, str]:
    """What of bsub's environment a job sees: never LSB_*. HOME, too, is the execution host's."""
    if len(choice) > ENV_CHARS_LIMIT:
        raise Refused("-env: argument too long. Job not submitted.\n")
    kept: dict[str, str] = {}
    for part in choice.split(","):
        word = part.strip()
        if word == "all":
            kept.update(env)
        elif word.startswith("~"):
            kept.pop(word[1:], None)
        elif "=" in word:
            name, _, value = word.partition("=")
            kept[name] = value
        elif word in env:
            kept[word] = env[word]
    return {k: v for k, v in kept.items() if not k.startswith("LSB_")}
