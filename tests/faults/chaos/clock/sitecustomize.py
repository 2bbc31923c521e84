"""Keep libfaketime to the daemon: under it, a task's time.sleep ends with EINVAL."""

import os

os.environ.pop("LD_PRELOAD", None)
