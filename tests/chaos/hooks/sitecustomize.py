"""Found by every Python process of a project whose PYTHONPATH names this folder: see `steps`."""

import steps  # type: ignore[import-not-found] # it stands beside this file, not on mypy's path

steps.watch()
