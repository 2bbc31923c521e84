"""What a cluster says of one job, and of a submission that it refuses."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto

from ds_flow.core import FailureClass, JobState
from ds_flow.dispatch.exit_codes import End

ENDED = frozenset({JobState.SUCCEEDED, JobState.FAILED})

Terms = Mapping[str, tuple[FailureClass, str]]
"""What the cluster's words for the cause of an end mean."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What a cluster reports of one array element."""

    job_id: str
    index: int
    state: JobState
    status: str  # the cluster's own word for the state
    is_idle: bool = False  # it waits or is suspended: no progress, and no fault
    waits: str = ""  # why it is pending, in the cluster's words
    exit_code: int | None = None
    name: str = ""  # of its array, where the cluster may give an id a second time
    term: str = ""  # the cluster's word for the cause of its end


class Refusal(Enum):
    """What a refused submission means for the next one."""

    FINAL = auto()  # it will not be accepted
    TOO_LARGE = auto()  # the array has too many elements
    TOO_MUCH_MEMORY = auto()  # more than the cluster gives
    LATER = auto()  # the site takes no job of this user now
    LEARNT = auto()  # the next request will be of another form


def end_of_term(term: str, terms: Terms) -> End | None:
    """The failure and the reason that a word of the cluster stands for, if it is known."""
    if term not in terms:
        return None
    failure, reason = terms[term]
    return failure, f"{reason} ({term})"
