"""bsub, bjobs, bkill and bhist, as the scheduler answers them."""

import random
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from lsf_emulator.config import CONSISTENT_EXIT_CODE, Config
from lsf_emulator.elements import ENDED, PENDING, Element, JobId, View, is_named, read_job_ids
from lsf_emulator.execution import BKILL_SIGNALS, Executor
from lsf_emulator.faults import Faults
from lsf_emulator.options import read_submission
from lsf_emulator.reports import RULE, chosen, history, json_records, read_format, second, table
from lsf_emulator.words import Options, Refused

FAILURE = 255
FORMAT_FIELDS = "jobid user stat queue from_host exec_host job_name submit_time"


@dataclass(frozen=True, slots=True)
class Answer:
    """What a command prints, and how it ends: below 0, by that signal."""

    out: str = ""
    err: str = ""
    exit: int = 0


@dataclass(slots=True)
class Cluster:
    """Everything the scheduler knows."""

    config: Config
    executor: Executor
    faults: Faults = field(default_factory=Faults)
    elements: list[Element] = field(default_factory=list)  # in the order of submission
    next_id: int = field(default_factory=lambda: random.randint(1000, 8999))

    def history(self) -> list[Element]:
        """The elements that bhist knows."""
        return [e for e in self.elements if self.faults.get("forgotten", e) is None]

    def listed(self) -> list[Element]:
        """The elements that bjobs knows."""
        now = time.time()
        return [e for e in self.history() if not self._is_gone(e, now)]

    def _is_gone(self, element: Element, now: float) -> bool:
        old = element.has_ended and now - element.ended_at > self.config.clean_period_s
        return old or self.faults.is_hidden(element, now)


def answer(cluster: Cluster, message: dict[str, Any]) -> Answer | None:
    """A command's answer; None if it never comes."""
    command = message["command"]
    try:
        said = COMMANDS[command](cluster, message)
    except Refused as refusal:
        said = Answer(err=str(refusal), exit=FAILURE)
    noise = cluster.faults.strike("noise", command)
    if said is None or noise is None:
        return said
    before = noise.arguments
    return Answer(
        before.get("stdout", "") + said.out, before.get("stderr", "") + said.err, said.exit
    )


def bsub(cluster: Cluster, message: dict[str, Any]) -> Answer | None:
    rejected = cluster.faults.strike("rejected", "bsub")
    if rejected:
        text = rejected.arguments.get("text", "Request aborted by esub. Job not submitted.\n")
        return Answer(err=text, exit=FAILURE)
    submission = read_submission(
        message["argv"], message["stdin"], message["cwd"], message["env"], cluster.config
    )
    for _ in range(2 if cluster.faults.strike("twice", "bsub") else 1):
        job_id = cluster.next_id
        cluster.next_id += 1
        now = time.time()
        cluster.executor.spool(job_id, submission.script)
        cluster.elements.extend(
            Element(job_id=job_id, index=index, submission=submission, submitted_at=now)
            for index in submission.indices
        )
    lost = cluster.faults.strike("reply_lost", "bsub")
    if lost:
        how = lost.arguments.get("how", "hang")
        endings = {"exit": Answer(exit=FAILURE), "kill": Answer(exit=-signal.SIGKILL)}
        return endings.get(how)
    default = "default " if submission.is_default_queue else ""
    return Answer(f"Job <{job_id}> is submitted to {default}queue <{submission.queue}>.\n")


def bjobs(cluster: Cluster, message: dict[str, Any]) -> Answer:
    options, ids = _read(cluster, message, "w a d r p s json noheader W X", "J o q u P m")
    if cluster.faults.strike("empty", "bjobs"):
        return Answer()
    if "json" in options and ("o" not in options or "noheader" in options):
        raise Refused("bjobs: -json must be used with -o, and never with -noheader\n")
    found, unknown = _find(cluster.listed(), options, ids)
    views = [cluster.faults.view(element) for element in found]
    if not ids:
        views = [view for view in views if _is_asked_for(view, options)]
    if "p" in options:
        views = [view for view in views if view.status in PENDING]
    if cluster.faults.get("shuffled"):
        random.shuffle(views)
    err, code = _missing(cluster.config, options, unknown, views)
    return Answer(_rows(cluster.config, options, views, unknown), err, code)


def _is_asked_for(view: View, options: Options) -> bool:
    """Without -a only what has not ended, with -d only what has."""
    if "a" in options:
        return True
    return (view.status in ENDED) == ("d" in options)


def _rows(config: Config, options: Options, views: Sequence[View], unknown: Sequence[str]) -> str:
    if "o" not in options:
        return table(views, config, wide="w" in options, reasons="p" in options)
    form = read_format(options["o"][-1] or FORMAT_FIELDS)
    if "json" in options:
        return json_records(views, unknown, form[0], config)
    return chosen(views, form, config, header="noheader" not in options)


def _missing(
    config: Config, options: Options, unknown: Sequence[str], views: Sequence[View]
) -> tuple[str, int]:
    """What bjobs says of jobs that are not there, and its exit code."""
    if unknown:
        return "".join(f"Job <{text}> is not found\n" for text in unknown), FAILURE
    if views:
        return "", 0
    if "J" in options:
        return f"Job <{options['J'][-1]}> is not found\n", FAILURE
    fails = config.dialect == "openlava" or config.is_on(CONSISTENT_EXIT_CODE)
    return f"No {'' if 'a' in options else 'unfinished '}job found\n", FAILURE if fails else 0


def bhist(cluster: Cluster, message: dict[str, Any]) -> Answer:
    options, ids = _read(cluster, message, "l a d e r p s w", "n J q u P m")
    found, unknown = _find(cluster.history(), options, ids)
    if not found:
        return Answer(err="No matching job found\n", exit=FAILURE)
    blocks = f"{RULE}\n\n".join(history(cluster.faults.view(element)) for element in found)
    end = f"\nSummary of time in seconds spent in various states by {second(time.time())}\n"
    err = "".join(f"Job <{text}> is not found\n" for text in unknown)
    return Answer(blocks + end, err, FAILURE if unknown else 0)


def bkill(cluster: Cluster, message: dict[str, Any]) -> Answer:
    options, ids = _read(cluster, message, "r d b l", "J s q u P m")
    known = cluster.history()
    if not ids and "J" not in options:
        raise Refused("Job ID or one of '-m', '-u' '-q' and '-J' must be specified.\n")
    if not ids:
        numbers = dict.fromkeys(e.job_id for e in known if is_named(e, options["J"][-1]))
        ids = [JobId(str(number), number, ()) for number in numbers]
        if not ids:
            return Answer(err=f"Job <{options['J'][-1]}> is not found\n", exit=FAILURE)
    answers = [_kill(cluster, job_id, known, options) for job_id in ids]
    return Answer(
        "".join(a.out for a in answers),
        "".join(a.err for a in answers),
        max(a.exit for a in answers),
    )


def _kill(cluster: Cluster, job_id: JobId, known: Sequence[Element], options: Options) -> Answer:
    found = [e for e in known if job_id.names(e)]
    if not found:
        return Answer(err=f"Job <{job_id.text}>: No matching job found\n", exit=FAILURE)
    live = [e for e in found if cluster.faults.view(e).status not in ENDED]
    if not live:
        return Answer(err=f"Job <{job_id.text}>: Job has already finished\n", exit=FAILURE)
    for element in live:
        _signal(cluster, element, options)
    if len(found) > 1 and cluster.faults.strike("in_progress", "bkill"):
        return Answer(err=f"Job <{job_id.text}>: Operation is in progress\n", exit=FAILURE)
    done = "signaled" if "s" in options else "terminated"
    return Answer(f"Job <{job_id.text}> is being {done}\n")


def _signal(cluster: Cluster, element: Element, options: Options) -> None:
    if "s" in options:
        _send_one(cluster, element, options["s"][-1].upper().removeprefix("SIG"))
        return
    element.ends_done = "d" in options
    if cluster.faults.is_out_of_contact(element):
        # nobody there hears it: it is sent when contact is back
        element.reason = "" if element.has_ended else "TERM_OWNER"
    elif "r" in options:
        cluster.executor.stop(element, "TERM_FORCE_OWNER", [signal.SIGKILL])
    else:
        cluster.executor.stop(element, "TERM_OWNER", BKILL_SIGNALS)


def _send_one(cluster: Cluster, element: Element, name: str) -> None:
    """One signal of `bkill -s`; STOP and CONT change the state, too."""
    number = int(name) if name.isdecimal() else int(signal.Signals[f"SIG{name}"])
    if number == signal.SIGSTOP:
        element.status = "USUSP" if element.started_at else "PSUSP"
    elif number == signal.SIGCONT:
        element.status = "RUN" if element.started_at else "PEND"
    if element.started_at:
        reason = "TERM_OWNER" if number in BKILL_SIGNALS else ""
        cluster.executor.stop(element, reason, [number])


COMMANDS: dict[str, Callable[[Cluster, dict[str, Any]], Answer | None]] = {
    "bsub": bsub,
    "bjobs": bjobs,
    "bkill": bkill,
    "bhist": bhist,
}


def _read(
    cluster: Cluster, message: dict[str, Any], flags: str, with_value: str
) -> tuple[Options, list[JobId]]:
    """Options by name, and job ids. Raises: Refused for what the dialect does not know."""
    command, words = message["command"], list(message["argv"])
    modern = {"json", "noheader", "o", "X"} if cluster.config.dialect == "openlava" else set()
    options: Options = {}
    while words and words[0].startswith("-"):
        name = words.pop(0)[1:]
        if name in set(flags.split()) - modern:
            options.setdefault(name, []).append("")
        elif name in set(with_value.split()) - modern and words:
            options.setdefault(name, []).append(words.pop(0))
        else:
            raise Refused(_usage(command, name))
    return options, read_job_ids(word for word in words if word != "0")


def _usage(command: str, name: str) -> str:
    return (
        f"{command}: invalid option -- '{name[:1]}'\n"
        f"Usage: {command} [-h] [-V] [-w |-l] [-a] [-d] [-p] [-s] [-r] [-J name_spec]\n"
        '             [jobId | "jobId[idxList]" ...]\n'
    )


def _find(
    known: Sequence[Element], options: Options, ids: Sequence[JobId]
) -> tuple[list[Element], list[str]]:
    """The elements that a command means, and the ids that mean none."""
    if ids:
        found = [e for e in known if any(job_id.names(e) for job_id in ids)]
        return found, [j.text for j in ids if not any(j.names(e) for e in found)]
    name = options.get("J", ["*"])[-1]
    queue = options.get("q", [""])[-1]
    return [e for e in known if is_named(e, name) and queue in {"", e.submission.queue}], []
