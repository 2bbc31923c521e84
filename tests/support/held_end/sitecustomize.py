"""Found by every Python process whose PYTHONPATH names this folder: `end` waits at its gate."""

import fcntl
import os
import sys
from pathlib import Path

gate, words = Path(os.environ.get("END_GATE", "")), sys.orig_argv

if gate.is_file() and "step" in words and words[words.index("step") + 1] == "end":
    gate.with_name(f"{gate.name}.reached").touch()
    with gate.open() as held:
        fcntl.flock(held, fcntl.LOCK_SH)
