"""Check each backend that is used: whether it answers, and whether it can run a job."""

from collections.abc import Callable, Mapping
from dataclasses import replace

from ds_flow.core import DispatchError
from ds_flow.dispatch import DockerClient, call, facts_of_slurm, unobtainable
from ds_flow.doctor import probe_job
from ds_flow.doctor.finding import Finding, Findings
from ds_flow.settings import Settings

ANSWER_SECONDS = 10  # a starting daemon waits no longer for a backend


def check_backends(settings: Settings, environ: Mapping[str, str]) -> Findings:
    """Ask each backend, then run a job for each stage whose backend has answered."""
    answers = list(unreachable_backends(settings, environ))
    yield from answers
    reachable = {found.subject for found in answers if found.level == "ok"}
    for name, stage in settings.stages.items():
        if stage.executor in reachable and _needs_probe(settings, name):
            where = (
                stage.image if stage.executor == "docker" else stage.queue or "default partition"
            )
            level, text = probe_job.probe(settings, name)
            yield Finding(level, f"{name} on {stage.executor} ({where})", text)


def _needs_probe(settings: Settings, name: str) -> bool:
    """Whether a stage runs elsewhere. An analysis without a command does not run at all."""
    stage = settings.stages[name]
    return stage.executor != "local" and (name != "analyze" or bool(stage.command))


def unreachable_backends(settings: Settings, environ: Mapping[str, str]) -> Findings:
    """Ask each backend that is used whether it answers. Fast enough for every start."""
    for executor in sorted({stage.executor for stage in settings.stages.values()}):
        yield REACHABLE[executor](settings, settings.run_environment(environ))


def silent_backends(
    settings: Settings, environ: Mapping[str, str], limit_s: float
) -> dict[str, str]:
    """Ask each backend in use one short question; why it does not answer, or ""."""
    found: dict[str, str] = {}
    for executor in sorted({stage.executor for stage in settings.stages.values()}):
        if executor in CLUSTERS:
            answer = CLUSTERS[executor](settings, settings.run_environment(environ), limit_s)
            found[executor] = "" if answer.level == "ok" else answer.text
        elif executor == "docker":
            found[executor] = _silent_engine(settings, environ, limit_s)
    return found


def _silent_engine(settings: Settings, environ: Mapping[str, str], limit_s: float) -> str:
    limit_s = min(settings.site.docker.command_seconds, limit_s)
    site = replace(settings.site.docker, command_seconds=limit_s)
    try:
        DockerClient(site, settings.run_environment(environ)).memory_mb()
    except DispatchError as error:
        return str(error)
    return ""


def _local(_settings: Settings, _environ: Mapping[str, str]) -> Finding:
    return Finding("ok", "local", "jobs run as child processes")


def _lsf(
    settings: Settings, environ: Mapping[str, str], limit_s: float = ANSWER_SECONDS
) -> Finding:
    """Ask for a job that does not exist: LSF answers that there is none."""
    limit_s = min(settings.site.lsf.command_seconds, limit_s)
    try:
        answer = call(["bjobs", "-J", "ds-flow-check"], limit_s, cwd=settings.root, environ=environ)
    except DispatchError as error:
        return Finding("fault", "lsf", str(error))
    if answer.timed_out or "Cannot connect" in answer.text or "down" in answer.text:
        message = answer.text[:200] or f"no answer in {limit_s:g} s"
        return Finding("fault", "lsf", f"unreachable ({message}); jobs wait until it answers")
    return Finding("ok", "lsf", "answers")


def _slurm(
    settings: Settings, environ: Mapping[str, str], limit_s: float = ANSWER_SECONDS
) -> Finding:
    """Ask for the site's configuration, and say what follows from it."""
    limit_s = min(settings.site.slurm.command_seconds, limit_s)
    command = ["scontrol", "show", "config"]
    try:
        answer = call(command, limit_s, cwd=settings.root, environ=environ)
    except DispatchError as error:
        return Finding("fault", "slurm", str(error))
    if answer.timed_out or answer.exit_code:
        message = answer.text[:200] or f"no answer in {limit_s:g} s"
        return Finding("fault", "slurm", f"unreachable ({message}); jobs wait until it answers")
    return Finding("ok", "slurm", f"answers ({facts_of_slurm(answer.out)})")


def _docker(settings: Settings, environ: Mapping[str, str]) -> Finding:
    """Ask whether the engine answers, and whether it has or can pull every image."""
    site = replace(settings.site.docker, command_seconds=ANSWER_SECONDS)
    images = sorted({one.image for one in settings.stages.values() if one.executor == "docker"})
    try:
        for name in images:
            if why := unobtainable(DockerClient(site, environ), name):
                text = f"the image {name} is missing and {why}"
                return Finding("fault", "docker", f"{text}; load it, or set another image")
    except DispatchError as error:
        advice = "start it, or give this user access to it (group docker)"
        return Finding("fault", "docker", f"{site.command}: {error}; {advice}")
    return Finding("ok", "docker", f"{site.command} answers; images: {', '.join(images)}")


CLUSTERS = {"lsf": _lsf, "slurm": _slurm}
REACHABLE: dict[str, Callable[[Settings, Mapping[str, str]], Finding]] = {
    "local": _local,
    **CLUSTERS,
    "docker": _docker,
}
