"""`make chaos`: drop, break, wait for rest, look. CHAOS_MINUTES, SEED and CHAOS_BACKEND choose.

With CHAOS_WAYS=1 files come with markers, and some of them in sets (see `chaos.deliveries`).

The plan - what is dropped and broken, and when - follows from the seed alone, so that a failing
seed can be played again. When time is up all faults are taken back, the daemon works off what is
there, and the outside checker looks. A watch on `out/` notes every published name that ever
disappears. All the while a hostile user attacks by way of the inbox. Exit code 1 if anything was
lost, doubled, partial, untrue or vanished.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from chaos import deliveries
from chaos.checker import Finding, Report, check
from chaos.droppers import WAYS, Dropper
from chaos.drops import HARM, Journal
from chaos.faults import Chaos, Fault, Undo
from chaos.hostile import hostile_beside
from chaos.sites import SITES, Site
from chaos.vanished import vanished_from
from chaos.world import AFTER, World, enter_namespace

# What is added to a file that has left the inbox makes a new file, which is no table.
LEFT_OUT = {"burst", "append in goes"} if AFTER else {"burst"}
COUNTED = ("lost", "doubled", "partial", "removed")
FAULT_EVERY_SECONDS = 1.8
DROP_EVERY_SECONDS = 2.0
FILES_A_DROP = (20, 200)
REST_SECONDS = float(os.environ.get("CHAOS_REST_SECONDS", "1800"))
STEP_SECONDS = 0.1
AGAIN_SECONDS = 1.0  # until what could not be taken back is tried again
TRIES = 3


@dataclass(frozen=True, slots=True, order=True)
class Moment:
    """Something that happens at a time of the plan."""

    at_s: float
    kind: str  # drop or fault
    what: str
    count: int = 0


def plan(seed: int, seconds: float, faults: Mapping[str, Fault]) -> list[Moment]:
    """What happens when, from the seed alone."""
    rng = random.Random(seed)
    moments = [Moment(seconds / 3, "fault", "overflow")]
    at_s = 0.0
    while at_s < seconds:
        at_s += rng.expovariate(1 / DROP_EVERY_SECONDS)
        way = rng.choice([way for way in WAYS if way not in LEFT_OUT])
        moments.append(Moment(at_s, "drop", way, rng.randint(*FILES_A_DROP)))
    names, weights = list(faults), [fault.weight for fault in faults.values()]
    at_s = 3.0
    while at_s < seconds:
        at_s += rng.expovariate(1 / FAULT_EVERY_SECONDS)
        moments.append(Moment(at_s, "fault", rng.choices(names, weights)[0]))
    return sorted(moments)


class Player:
    """Plays a plan on a world."""

    def __init__(
        self, chaos: Chaos, faults: Mapping[str, Fault], sender: deliveries.Sender | None = None
    ) -> None:
        self.chaos, self.faults, self.sender = chaos, faults, sender
        self.counts: Counter[str] = Counter()
        self._undo: list[tuple[float, str, Undo]] = []

    def play(self, moments: list[Moment]) -> None:
        """Every moment at its time, as far as the machine keeps up."""
        start_s = time.monotonic()
        for moment in moments:
            while (now_s := time.monotonic() - start_s) < moment.at_s:
                self._keep(now_s)
            self._play(moment, time.monotonic() - start_s)
        self.calm()

    def _play(self, moment: Moment, now_s: float) -> None:
        print(f"{now_s:7.1f} s  {moment.kind} {moment.what} {moment.count or ''}", flush=True)
        self.counts[moment.kind] += 1
        try:
            if moment.kind == "drop":
                WAYS[moment.what](self.chaos.dropper, moment.count)
                if self.sender:
                    self.sender.send()
            else:
                self._break(moment.what, now_s)
        except (OSError, subprocess.CalledProcessError) as error:  # two faults met
            print(f"          {error}")

    def _break(self, what: str, now_s: float) -> None:
        if any(name == what for _, name, _ in self._undo):
            return  # it lasts already
        fault = self.faults[what]
        self.counts[what] += 1
        undo = fault.act(self.chaos)
        if undo is not None:
            self._undo.append((now_s + fault.seconds, what, undo))

    def _keep(self, now_s: float) -> None:
        due = [item for item in self._undo if item[0] <= now_s]
        for item in due:
            self._undo.remove(item)
            if not self._take_back(item[2]):
                self._undo.append((now_s + AGAIN_SECONDS, *item[1:]))
        self.chaos.world.keep()
        threading.Event().wait(STEP_SECONDS)

    def _take_back(self, undo: Undo) -> bool:
        """Whether that could be done: one fault may stand in another's way."""
        try:
            undo()
        except (OSError, subprocess.CalledProcessError) as error:
            print(f"          not taken back yet: {error}")
            return False
        return True

    def calm(self) -> None:
        """Take back every fault; the clock, too."""
        for _ in range(TRIES):
            self._undo = [item for item in self._undo if not self._take_back(item[2])]
        assert not self._undo, self._undo
        self.chaos.world.clock.write_text("+0\n")
        self.chaos.dropper.wait()


def rest(world: World) -> None:
    """Let the daemon work off what is there."""
    end_s = time.monotonic() + REST_SECONDS
    said = 0.0
    while not _is_at_rest(world):
        if time.monotonic() > end_s:
            print("it never came to rest", world.status())
            return
        world.keep()
        threading.Event().wait(1.0)
        if time.monotonic() - said > 30:
            said = time.monotonic()
            print("waiting for rest:", world.status()["files"], flush=True)
    world.is_held = True
    world.end()


def _is_at_rest(world: World) -> bool:
    if world.daemon is None or not world.ledger.exists():
        return False
    try:
        status = world.status()
    except ValueError:
        return False
    busy = sum(status["batches"].get(state, 0) for state in ("queued", "running", "retrying"))
    return not (busy or status["files"]["waiting"] or status["arriving"])


def summary(player: Player, report: Report, seed: int, seconds: float) -> Iterator[str]:
    """What a person wants to know."""
    chaos = player.chaos
    journal = chaos.dropper.journal
    yield f"seed {seed}, {seconds / 60:g} minutes, {chaos.world.starts} daemons started"
    yield f"daemons that ended by themselves, by exit code: {chaos.world.exits}"
    said = chaos.world.said()
    yield f"bugs in the daemon's log: {said.count('stage.bug') + said.count('file.bug')}"
    yield f"lines on the hostile user's files in the daemon's log: {said.count(HARM)}"
    yield "faults: " + ", ".join(f"{n} {name}" for name, n in sorted(player.counts.items()))
    yield f"good tables set aside, with these reasons: {dict(report.set_aside)}"
    yield from (f"{finding.kind}: {finding.what}" for finding in report.findings[:50])
    verdicts = ", ".join(f"{report.count(kind)} {kind}" for kind in COUNTED)
    others = len(report.findings) - sum(map(report.count, COUNTED))
    yield (
        f"{report.files} files, {journal.versions} versions dropped, {report.versions} recorded,"
        f" {report.published} published; {chaos.kills} kills, {player.counts['fault']} faults:"
        f" {verdicts}, {others} otherwise wrong"
    )


def main() -> int:
    """Play one plan on the site of CHAOS_BACKEND."""
    seconds = float(os.environ.get("CHAOS_MINUTES", "") or 2) * 60
    seed = int(os.environ.get("SEED", "") or random.randrange(10**6))
    site = SITES[os.environ.get("CHAOS_BACKEND", "") or "local"]
    print(f"seed {seed}", flush=True)
    folder = Path(tempfile.mkdtemp(prefix="ds-flow-chaos-"))
    folder.chmod(0o755)
    with site(folder) as place:
        report = play(folder, place, seed, seconds)
    if report.findings:
        print(f"kept for a look: {folder}")
        return 1
    shutil.rmtree(folder)
    return 0


def play(folder: Path, site: Site, seed: int, seconds: float) -> Report:
    """Play one plan in a folder; what the checker finds, and what the site still holds."""
    (folder / "staged").mkdir()
    rng = random.Random(seed)
    more = deliveries.settings(seconds) if deliveries.IS_ON else {}
    has_clock = "clock" in site.faults
    world = World(folder / "project", site.compute, site.environment, clock=has_clock, more=more)
    dropper = Dropper(world.inbox, folder / "staged", Journal(), rng)
    sender = deliveries.Sender(dropper, seconds) if deliveries.IS_ON else None
    player = Player(Chaos(world, dropper, rng), site.faults, sender)
    try:
        with vanished_from(world.out) as vanished:
            with hostile_beside(world.inbox, dropper.journal.harmless(), seed):
                player.play(plan(seed, seconds, site.faults))
            if sender:
                sender.finish(world)
            rest(world)
            if AFTER:
                world.once()  # lets everything leave that is to leave
        report = check(world, dropper.journal)
        report.findings += [Finding("vanished", name) for name in vanished]
        report.findings += [Finding("stray", what) for what in site.left()]
        if sender:
            report.findings += deliveries.sets_are_whole(world.ledger)
            whole, without, late = deliveries.formed_sets(world.ledger)
            formed = f"{whole} formed whole, {without} at their time without some files"
            print(f"{sender.marks} markers; {sender.sets} sets: {formed}; {late} late batches")
        print(*summary(player, report, seed, seconds), sep="\n")
    finally:
        world.end_everything()
        shutil.copytree(world.log, folder / "log", dirs_exist_ok=True)
        world.unmount()
    return report


if __name__ == "__main__":
    enter_namespace()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # tidying up all the same
    sys.exit(main())
