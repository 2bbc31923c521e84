"""The environment of a run: what it does not inherit, and what is set instead."""

import re
from collections.abc import Mapping

GIVEN_NAMES = "DS_FLOW_GIVEN"
"""This variable names the variables of `.env`. A process that has it runs as part of a run."""

NOT_INHERITED = re.compile(
    r"METAFLOW_(?!USER$).*"  # each option of its command line, and each of its settings
    r"|PYTHON(INSPECT|OPTIMIZE|SAFEPATH|WARNINGS)"  # other rules than the flow is written for
    r"|SHELLOPTS|BASHOPTS|POSIXLY_CORRECT"  # the same for bash
    r"|GIT_.*"  # another repository than the checkout's
    r"|DS_FLOW_(ATTEMPT|JOB)"  # of the run that this one was started in
    r"|NOTIFY_SOCKET|WATCHDOG_(USEC|PID)|LISTEN_(FDS|PID)"  # systemd's, for the daemon
)


def inherited_variables(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables that a run inherits from its caller. `.env` may set any of the others."""
    return {name: text for name, text in environ.items() if not NOT_INHERITED.fullmatch(name)}


def pinned_variables(root: str, cores: int) -> dict[str, str]:
    """The variables that make Metaflow work the same for everyone who starts a run.

    - One datastore, whatever the current directory and user.
    - Limits that fit the groups which `start` makes.
    - The project's own home: a user's ~/.metaflowconfig is for other flows.
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
