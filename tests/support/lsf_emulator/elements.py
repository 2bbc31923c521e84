"""Jobs as the scheduler knows them, and what it says of them."""

from collections.abc import Iterable
from dataclasses import dataclass

from lsf_emulator.options import RANGE, Submission
from lsf_emulator.words import Refused

PENDING = frozenset(["PEND", "PSUSP", "WAIT", "PROV"])
STARTED = frozenset(["RUN", "USUSP", "SSUSP", "UNKWN", "ZOMBI"])
ENDED = frozenset(["DONE", "EXIT"])

REASONS = {
    "TERM_RUNLIMIT": "job killed after reaching LSF run time limit",
    "TERM_CPULIMIT": "job killed after reaching LSF CPU usage limit",
    "TERM_SWAP": "job killed after reaching LSF swap usage limit",
    "TERM_DEADLINE": "job killed after deadline expires",
    "TERM_OWNER": "job killed by owner",
    "TERM_FORCE_OWNER": "job killed by owner without time for cleanup",
    "TERM_MEMLIMIT": "job killed after reaching LSF memory usage limit",
    "TERM_EXTERNAL_SIGNAL": "job killed by a signal external to LSF",
    "TERM_CWD_NOTEXIST": "current working directory is not accessible or does not exist",
    "TERM_ZOMBIE": "zombie job killed by LSF",
    "TERM_PREEMPT": "job killed after preemption",
}


@dataclass(slots=True, kw_only=True, eq=False)
class Element:
    """One element of an array, or a job that is none (index 0)."""

    job_id: int
    index: int
    submission: Submission
    submitted_at: float
    status: str = "PEND"
    host: str = ""
    pid: int = 0  # also its session
    started_at: float = 0.0
    ended_at: float = 0.0
    exit_code: int | None = None  # 128 + signal for one that a signal ended
    signal: int = 0  # that ended it
    reason: str = ""  # TERM_...
    stdout: str = ""  # where output is spooled until the end
    stderr: str = ""
    has_passed_limit: bool = False
    ends_done: bool = False  # bkill -d

    @property
    def native_id(self) -> str:
        return f"{self.job_id}[{self.index}]" if self.index else str(self.job_id)

    @property
    def name(self) -> str:
        name = self.submission.name
        return f"{name}[{self.index}]" if self.index else name

    @property
    def has_ended(self) -> bool:
        return self.status in ENDED


@dataclass(frozen=True, slots=True)
class View:
    """What the scheduler says of an element, true or not."""

    element: Element
    status: str
    exit_code: int | None
    reason: str

    @property
    def exit_code_text(self) -> str:
        """Empty for what is done, has not ended, or was killed before it began."""
        return str(self.exit_code) if self.status == "EXIT" and self.exit_code is not None else ""

    @property
    def reason_text(self) -> str:
        """What exit_reason shows, as in `TERM_OWNER: job killed by owner`."""
        return f"{self.reason}: {REASONS[self.reason]}" if self.reason else ""


@dataclass(frozen=True, slots=True)
class JobId:
    """A job id as people write it: `123`, or `123[5-6]` for some elements."""

    text: str
    job_id: int
    indices: tuple[int, ...]  # none means all

    def names(self, element: Element) -> bool:
        return element.job_id == self.job_id and (not self.indices or element.index in self.indices)


def read_job_ids(words: Iterable[str]) -> list[JobId]:
    """Raises: Refused for what is no job id."""
    return [_read_job_id(word) for word in words]


def _read_job_id(word: str) -> JobId:
    number, bracket, rest = word.partition("[")
    parts = rest.removesuffix("]").split(",") if bracket else []
    ranges = [RANGE.match(part) for part in parts]
    if not number.isdecimal() or not all(ranges):
        raise Refused(f"{word}: Illegal job ID.\n")
    indices: set[int] = set()
    for found in filter(None, ranges):
        indices.update(range(int(found[1]), int(found[2] or found[1]) + 1, int(found[3] or 1)))
    return JobId(word, int(number), tuple(sorted(indices)))


def is_named(element: Element, name: str) -> bool:
    """Whether -J means this element: `name`, `name[3]`, with * at either end."""
    plain, bracket, rest = name.partition("[")
    if bracket and rest.removesuffix("]").isdecimal() and element.index != int(rest[:-1]):
        return False
    own = element.submission.name
    if plain.endswith("*"):
        return own.startswith(plain[:-1])
    return own.endswith(plain[1:]) if plain.startswith("*") else own == plain
