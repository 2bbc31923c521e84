"""The border of all work beside the line: a failure of one part stops nothing else."""

import logging
from collections.abc import Callable
from dataclasses import dataclass

from ds_flow.core import DispatchError

log = logging.getLogger(__name__)

REST_SECONDS = 60.0  # after a failure


@dataclass(slots=True)
class Beside:
    """One part of that work: how often it is done, and why it could not be done last time."""

    name: str
    every_s: float = 0.0
    due_s: float = 0.0  # monotonic
    _why: str = ""

    def keep(self, now_s: float, work: Callable[[], object]) -> None:
        """Do the work if it is due. If it fails, that is logged once, and it is done again later.

        A bug is logged each time.
        """
        if now_s < self.due_s:
            return
        self.due_s = now_s + max(self.every_s, REST_SECONDS)
        try:
            work()
        except (DispatchError, OSError) as error:
            if str(error) != self._why:
                log.warning("upkeep.waits", extra={"part": self.name, "why": str(error)})
            self._why = str(error)
        except Exception:
            log.exception("upkeep.bug", extra={"part": self.name})
        else:
            self.due_s, self._why = now_s + self.every_s, ""
