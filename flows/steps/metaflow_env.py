"""The environment of a run, set when this module is imported: before Metaflow, which reads it then.

A run by hand forms its batch here, and the process becomes itself again in a run's environment.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from ds_flow.core import CHECKOUT, GIVEN_NAMES, DsFlowError, inherited_variables, pinned_variables
from ds_flow.system import hold_store, speak_utf8

CONFIG = Path(os.environ.get("DS_FLOW_CONFIG") or CHECKOUT / "config" / "settings.yaml").absolute()
ROOT = CONFIG.parents[1].resolve()


def enter(argv: Sequence[str]) -> None:
    """Become the same program in the environment of a run; return if it is in one already."""
    if GIVEN_NAMES not in os.environ:
        os.execve(sys.executable, [sys.executable, *argv], _environment())  # noqa: S606 - this very process


def _environment() -> dict[str, str]:
    """The environment of a run. If the settings are faulty, whoever needs them reports that."""
    from ds_flow.settings import load_settings  # which a task has no use for

    try:
        return load_settings(CONFIG, os.environ, to_work=False).run_environment(os.environ)
    except DsFlowError:
        return {**inherited_variables(os.environ), GIVEN_NAMES: ""}


def prepare(argv: Sequence[str]) -> None:
    """Set what Metaflow reads; for the flow as a program, take its place in the project, too.

    Every process of a flow holds Metaflow's store, so that nothing is swept beside it.
    """
    is_program = Path(argv[0]).name == "student_flow.py"
    if is_program:
        speak_utf8()
        enter(argv)
    os.environ["DS_FLOW_CONFIG"] = str(CONFIG)
    os.environ.update(pinned_variables(str(ROOT), len(os.sched_getaffinity(0))))
    os.environ.setdefault("METAFLOW_USER", "ds-flow")  # else root is unknown to it
    if not is_program:
        return
    from steps import by_hand  # reads the settings; whoever only imports the flow needs none

    by_hand.begin(argv)
    try:
        hold_store(ROOT)
    except DsFlowError as error:
        sys.exit(f"student_flow.py: {error}")


prepare(sys.argv)
