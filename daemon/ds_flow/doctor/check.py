"""All checks, in the order in which `ds-flow check` prints them."""

from collections.abc import Callable, Mapping

from ds_flow.doctor import backends, exposure, programs, storage
from ds_flow.doctor.finding import Finding, Findings
from ds_flow.settings import Settings

Check = Callable[[Settings, Mapping[str, str]], Findings]
"""Gets the settings and the environment of a run."""

CHECKS: tuple[Check, ...] = (
    storage.check_folders,
    storage.check_inbox,
    storage.check_ledger,
    storage.check_inotify,
    storage.check_free_space,
    exposure.check_exposure,
    programs.check_flow,
    programs.check_transform,
    programs.check_user,
    programs.check_bash,
    programs.check_analyze,
    programs.check_alerts,
    backends.check_backends,
)


def run_checks(settings: Settings, environ: Mapping[str, str]) -> list[Finding]:
    """Check everything that ds-flow depends on. No input is changed and nothing is left behind."""
    environ = settings.run_environment(environ)
    return [finding for check in CHECKS for finding in check(settings, environ)]
