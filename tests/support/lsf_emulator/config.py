"""What a cluster is like; written by the test, read by the scheduler and the commands."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

Dialect = Literal["ibm", "openlava"]

CONFIG = "config.json"

DISPLAY_ENH = "LSB_BJOBS_DISPLAY_ENH"
CONSISTENT_EXIT_CODE = "LSB_BJOBS_CONSISTENT_EXIT_CODE"
EXIT_IF_CWD_MISSING = "LSB_EXIT_IF_CWD_NOTEXIST"
UNIT_FOR_LIMITS = "LSF_UNIT_FOR_LIMITS"


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The settings of a cluster: its size, its clocks, and its lsf.conf."""

    dialect: Dialect = "ibm"
    slots: int = 4
    queues: dict[str, int] = field(default_factory=dict)  # slots of each; the first is the default
    max_array: int = 1000  # MAX_JOB_ARRAY_SIZE
    clean_period_s: float = 3600.0
    scheduling_delay_s: float = 0.05
    minute_s: float = 60.0  # how long a minute of -W lasts
    kill_interval_s: float = 10.0  # JOB_TERMINATE_INTERVAL
    memory_checked_below_mb: int = 512  # larger limits of -M are never looked at
    queue_memory_mb: int = 0  # the hard limit of every queue; 0 for none
    conf: dict[str, str] = field(default_factory=dict)  # lsf.conf, by its own names

    @classmethod
    def read(cls, folder: Path) -> "Config":
        return cls(**json.loads((folder / CONFIG).read_text(encoding="utf-8")))

    def write(self, folder: Path) -> None:
        (folder / CONFIG).write_text(json.dumps(asdict(self)), encoding="utf-8")

    @property
    def default_queue(self) -> str:
        return next(iter(self.queues))

    def is_on(self, parameter: str) -> bool:
        """Whether a parameter of lsf.conf is Y."""
        return self.conf.get(parameter, "N").upper() == "Y"
