"""The environment of a run, set when this module is imported: before Metaflow, which reads it then.

A run by hand forms its batch here, and the process becomes itself again in a run's environment.
"""

import os
import sys
from collections.abc import Sequence
from contextlib import chdir
from pathlib import Path

from ds_flow.core import (
    ATTEMPT_MARK,
    CHECKOUT,
    GIVEN_NAMES,
    STANDBY,
    DsFlowError,
    inherited_variables,
    pinned_variables,
)
from ds_flow.system import hold_store, speak_utf8
from steps.command_line import batch_options, command_of, places_of_words

CONFIG = Path(os.environ.get("DS_FLOW_CONFIG") or CHECKOUT / "config" / "settings.yaml").absolute()
ROOT = CONFIG.parents[1].resolve()
IN_PROJECT = {"step", "spin-step", "card"}  # commands of Metaflow


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


def go_home(argv: list[str]) -> None:
    """Let tasks, and commands on cards, work in the project's folder, wherever they are started.

    Metaflow keeps cards in the `.metaflow` that it finds from the current folder. An analysis, too,
    works in the project's folder, as under the daemon.
    """
    command = command_of(argv)
    if command not in IN_PROJECT or not ROOT.is_dir():
        return
    places = list(places_of_words(argv))
    files = [0]
    if command == "card" and [argv[place] for place in places[1:2]] == ["get"]:
        files += places[3:]  # card get PATHSPEC FILE
    for place in files:
        argv[place] = str(Path(argv[place]).absolute())
    os.chdir(ROOT)


def configure_metaflow() -> None:
    """Let Metaflow read its configuration in a folder that is root's.

    It looks for `.metaflow/config.json` in the current folder and all above it. Anybody may have
    put one there, and it can change what runs. The project's own is found by METAFLOW_HOME.
    """
    with chdir("/"):
        import metaflow.metaflow_config  # noqa: F401 - it is read when imported


def prepare(argv: list[str]) -> None:
    """Set what Metaflow reads; for the flow as a program, take its place in the project, too.

    Every process of a flow holds Metaflow's store; a standby does so once its batch is there.
    """
    is_program = Path(argv[0]).name == "student_flow.py"
    if is_program:
        speak_utf8()
        enter(argv)
    os.environ["DS_FLOW_CONFIG"] = str(CONFIG)
    os.environ.update(pinned_variables(str(ROOT), len(os.sched_getaffinity(0))))
    os.environ.setdefault("METAFLOW_USER", "ds-flow")  # else root is unknown to it
    configure_metaflow()
    if not is_program:
        return
    go_home(argv)
    if _is_by_hand(argv):
        from steps import by_hand  # reads the settings, which takes others a sixth of their start

        by_hand.begin(argv)
    if STANDBY not in os.environ:
        hold()


def _is_by_hand(argv: Sequence[str]) -> bool:
    """Whether a person starts a run, not the daemon: its runs carry the mark of their batch."""
    if command_of(argv) not in {"run", "resume"} or "--help" in argv:
        return False
    return not os.environ.get(ATTEMPT_MARK, "").startswith(f"{batch_options(argv).batch}/")


def hold() -> None:
    """Hold Metaflow's store, so that nothing is swept beside this process."""
    try:
        hold_store(ROOT)
    except DsFlowError as error:
        sys.exit(f"student_flow.py: {error}")


prepare(sys.argv)
