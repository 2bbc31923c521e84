"""Whether this process only looks, such as the page's.

It tries nothing out by writing, and its own rights say nothing of the daemon's.
"""

_state = {"only_looks": False}


def only_look() -> None:
    """From now on this process only looks."""
    _state["only_looks"] = True


def is_only_looking() -> bool:
    """Whether `only_look` was called."""
    return _state["only_looks"]
