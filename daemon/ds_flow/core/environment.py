"""What of its caller's environment a run does not go by, and what it goes by instead."""

import re
from collections.abc import Mapping

GIVEN_NAMES = "DS_FLOW_GIVEN"
"""The names in `.env`, of which a run has every variable; who has this one runs as a run does."""

NOT_INHERITED = re.compile(
    r"METAFLOW_(?!USER$).*"  # each option of its command line, and each of its settings
    r"|PYTHON(INSPECT|OPTIMIZE|SAFEPATH|WARNINGS)"  # other rules than the flow is written for
    r"|SHELLOPTS|BASHOPTS|POSIXLY_CORRECT"  # the same for bash
    r"|GIT_.*"  # another repository than the checkout's
    r"|DS_FLOW_(ATTEMPT|JOB)"  # of the run that this one was started in
    r"|NOTIFY_SOCKET|WATCHDOG_(USEC|PID)|LISTEN_(FDS|PID)"  # systemd's, for the daemon
)


def inherited_variables(environ: Mapping[str, str]) -> dict[str, str]:
    """Give what a run takes of its caller's environment; `.env` may set any of the others."""
    return {name: text for name, text in environ.items() if not NOT_INHERITED.fullmatch(name)}


def pinned_variables(root: str, cores: int) -> dict[str, str]:
    """Give the variables by which Metaflow works in a project, whoever starts it.

    It has one datastore for every directory and user, limits that fit the groups of `start`, and
    no home but the project's: a user's ~/.metaflowconfig is for other flows.
    """
    return {
        "METAFLOW_HOME": f"{root}/.metaflow",
        "METAFLOW_DATASTORE_SYSROOT_LOCAL": root,
        "METAFLOW_DEFAULT_DATASTORE": "local",
        "METAFLOW_DEFAULT_ENVIRONMENT": "local",
        "METAFLOW_DEFAULT_METADATA": "local",
        "METAFLOW_RUN_MAX_WORKERS": str(cores),
        "METAFLOW_RUN_MAX_NUM_SPLITS": str(max(cores, 100)),
    }
