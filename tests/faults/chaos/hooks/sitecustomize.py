"""Found by every Python process of a project whose PYTHONPATH names this folder: see `step_log`."""

import step_log  # type: ignore[import-not-found] # it stands beside this file, not on mypy's path

step_log.watch()
