"""What the backends of clusters share: a round's jobs as job arrays."""

from ds_flow.dispatch.cluster.backend import ClusterBackend
from ds_flow.dispatch.cluster.calls import NO_ANSWER, Calls, Poll, Scheduler, Submitted, shown
from ds_flow.dispatch.cluster.ends import ENDED, Refusal, Row, Terms, end_of_term
from ds_flow.dispatch.cluster.handover import Chunk, Handover, array_of

__all__ = [
    "ENDED",
    "NO_ANSWER",
    "Calls",
    "Chunk",
    "ClusterBackend",
    "Handover",
    "Poll",
    "Refusal",
    "Row",
    "Scheduler",
    "Submitted",
    "Terms",
    "array_of",
    "end_of_term",
    "shown",
]
