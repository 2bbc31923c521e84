"""The environment of a run: what it inherits, and what is set instead."""

import re
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase

GIVEN_NAMES = "DS_FLOW_GIVEN"
"""This variable names the variables of `.env`. A process that has it runs as part of a run."""

RUN_ID = "DS_FLOW_RUN_ID"
"""A command that gets a published run has this variable: the Run ID."""

FORK = "DS_FLOW_RUN__FORK"
"""This variable is false in a run whose tasks are to be new programs, not forks."""

CARD = "DS_FLOW_REPORT__CARD"
"""This variable is true in a run that is to have a Metaflow card of its report."""

STANDBY = "DS_FLOW_STANDBY"
"""A run with this variable is a standby: it waits for its batch. The value is its log."""

INHERITED = re.compile(
    r"PATH|HOME|SHELL|USER|USERNAME|LOGNAME|SUDO_USER|METAFLOW_USER"  # who works
    r"|LD_LIBRARY_PATH|(LSF|EGO)_.*|LSB_DEFAULT.*"  # a cluster's profile sets these
    r"|SLURM_CONF|SBATCH_(ACCOUNT|PARTITION|QOS|RESERVATION|CONSTRAINT|WCKEY)"
    r"|(DOCKER|CONTAINER|XDG)_.*|DBUS_SESSION_BUS_ADDRESS|SSH_AUTH_SOCK|KRB5CCNAME"
    r"|(https?|all|no)_proxy|(HTTPS?|ALL|NO)_PROXY"
    r"|PROCESS_TAG|DS_FLOW_(?!(ATTEMPT|JOB|GIVEN|MASK|STANDBY|RUN_ID)$).*"  # settings
)
"""All that a run inherits from its caller. Whatever else it needs is in `.env` or `run.inherit`."""

OF_ONE_RUN = re.compile("DS_FLOW_(ATTEMPT|JOB|GIVEN|MASK|STANDBY|RUN_ID)")
"""A run that is started within another one, of another project perhaps, is not that one."""

METAFLOW_PARTS = ("DATASTORE", "ENVIRONMENT", "METADATA")

DEFAULT_VARIABLES = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8"}
"""What a run has where neither its caller nor `.env` says otherwise."""


def inherited_variables(environ: Mapping[str, str], further: Iterable[str] = ()) -> dict[str, str]:
    """The variables that a run inherits from its caller: known ones, and further ones."""
    return {
        name: text
        for name, text in environ.items()
        if INHERITED.fullmatch(name)
        or (not OF_ONE_RUN.fullmatch(name) and any(fnmatchcase(name, one) for one in further))
    }


def pinned_variables(root: str, cores: int) -> dict[str, str]:
    """The variables that make a run work the same for everyone who starts it.

    - Names of files are UTF-8, whatever the locale.
    - Metaflow has one datastore, whatever the current directory and user, and a run's packages are
      those of this environment.
    - Its limits fit the groups which `start` makes.
    - It has the project's own home: a user's ~/.metaflowconfig is for other flows.
    """
    return {
        "PYTHONUTF8": "1",
        "METAFLOW_HOME": f"{root}/.metaflow",
        "METAFLOW_DATASTORE_SYSROOT_LOCAL": root,
        **{f"METAFLOW_{kind}": "local" for kind in METAFLOW_PARTS},
        **{f"METAFLOW_DEFAULT_{kind}": "local" for kind in METAFLOW_PARTS},
        "METAFLOW_RUN_MAX_WORKERS": str(cores),
        "METAFLOW_RUN_MAX_NUM_SPLITS": str(max(cores, 100)),
    }
