"""Change the code at random, one place at a time, and name each change that no test sees.

`make mutants` draws MUTANTS (150) changes by SEED from the modules below: a condition negated, a
statement dropped, a constant changed. Each is made in a copy of the checkout, where the tests of
its group run until one fails. A survivor is either the same program, or a test is missing.

Call it again after an interruption, or after tests were added: `build/mutants-SEED.log` keeps what
was seen. A line that is removed from it is tried again.
"""

import ast
import os
import random
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
NOT_COPIED = (".git", ".venv", ".uv", "out", "log", "build", ".*_cache", "__pycache__")
HANG_SECONDS = "300"  # then a mutant is taken for seen

# Where changes are made -> the tests that should see them, quick ones first.
LINE = ("line/test_engine.py", "line/test_recovery.py", "line/test_state_machine.py")
GROUPS: dict[str, tuple[str, ...]] = {
    "daemon/ds_flow/work": (
        *("unit/test_batch.py", "unit/test_torn_files.py", "unit/test_states.py"),
        *("line/test_publication.py", "line/test_publish_step.py", "line/test_process_job.py"),
        *(*LINE, "line/test_retention.py", "attack/test_security.py", "line/test_analysis.py"),
        *("line/test_two_users.py", "faults/test_moves.py", "attack/test_one_file.py"),
    ),
    "daemon/ds_flow/ledger": (
        *("unit/test_ledger.py", "unit/test_ledger_moves.py", "unit/test_ledger_requests.py"),
        *(
            "unit/test_ledger_store.py",
            "unit/test_status.py",
            "unit/test_explain.py",
            "line/test_alerts.py",
            *LINE,
        ),
        *("line/test_fires.py", "line/test_retention.py", "line/test_cli.py"),
        *("line/test_held_back.py", "line/test_checks.py", "line/test_upgrade.py"),
    ),
    "daemon/ds_flow/dispatch": (
        *("unit/test_lsf_texts.py", "unit/test_commands.py", "unit/test_torn_files.py"),
        *("unit/test_progress.py", "unit/test_oom_kills.py"),
        *(
            "unit/test_run_job.py",
            "unit/test_local.py",
            "backends/test_dispatch.py",
            "backends/test_lsf.py",
        ),
        *("backends/test_docker.py", "line/test_supervise.py", "line/test_stages.py"),
    ),
    "daemon/ds_flow/inbox": (
        *(
            "unit/test_scan.py",
            "unit/test_settling.py",
            "line/test_watcher.py",
            "line/test_admission.py",
            *LINE,
        ),
        *("line/test_bad_input.py", "line/test_clients.py"),
        *("attack/test_one_file.py", "attack/test_security.py"),
    ),
    "daemon/ds_flow/runs": (
        *(*LINE, "line/test_supervise.py", "line/test_environment.py", "unit/test_commands.py"),
        *("line/test_held_back.py", "line/test_analysis.py", "line/test_two_users.py"),
        *("line/test_retention.py", "attack/test_security.py", "faults/test_bad_moments.py"),
        "faults/test_moves.py",
    ),
    "flows/steps/publish.py": (
        *("line/test_publish_step.py", "line/test_file_results.py", "line/test_stages.py"),
        *("line/test_analysis.py", "line/test_flow_by_hand.py", "faults/test_bad_moments.py"),
    ),
    "flows/csv_io": (
        *("unit/test_csv_table.py", "unit/test_csv_fuzz.py", "line/test_process_job.py"),
        *("line/test_stages.py", "line/test_file_results.py"),
    ),
}

SWAPS: dict[type[ast.AST], str] = {
    ast.Lt: "<=",
    ast.LtE: "<",
    ast.Gt: ">=",
    ast.GtE: ">",
    ast.Eq: "!=",
    ast.NotEq: "==",
    ast.In: "not in",
    ast.NotIn: "in",
    ast.Is: "is not",
    ast.IsNot: "is",
}


@dataclass(frozen=True, slots=True)
class Mutant:
    """One change: these bytes of a file in place of those."""

    file: str
    line: int
    column: int
    start: int
    end: int
    text: str

    def write(self, source: bytes, path: Path) -> None:
        path.write_bytes(source[: self.start] + self.text.encode() + source[self.end :])

    def told(self, source: bytes) -> str:
        place = f"{self.file}:{self.line}:{self.column}"
        was, now = source[self.start : self.end].decode(), self.text
        return f"{place}: {' '.join(was.split())[:100]}  ->  {' '.join(now.split())[:100]}"


def changes(node: ast.AST, text: str) -> Iterator[tuple[ast.expr | ast.stmt, str]]:
    """What can be changed at one node: the part of the code, and what it becomes."""
    match node:
        case ast.If(test=test) | ast.While(test=test) | ast.IfExp(test=test):
            yield test, f"(not ({ast.get_source_segment(text, test)}))"
        case ast.Compare(left=left, ops=[operator], comparators=[right]):
            sides = [ast.get_source_segment(text, side) for side in (left, right)]
            yield node, f"({sides[0]} {SWAPS[type(operator)]} {sides[1]})"
        case ast.BoolOp(op=operator, values=values):
            word = " or " if isinstance(operator, ast.And) else " and "
            yield node, f"({word.join(f'({ast.get_source_segment(text, one)})' for one in values)})"
        case ast.Expr(value=ast.Call()) | ast.Raise() | ast.AugAssign() | ast.Delete():
            yield node, "pass"
        case ast.Assign(targets=[ast.Attribute() | ast.Subscript()]):
            yield node, "pass"
        case ast.Constant(value=bool(value)):
            yield node, str(not value)
        case ast.Constant(value=int(value) | float(value)):
            yield node, str(value + 1)


def code_of(tree: ast.AST) -> Iterator[ast.AST]:
    """Every node but annotations, decorators and f-strings, whose parts have no place."""
    yield tree
    for name, value in ast.iter_fields(tree):
        if name in {"annotation", "returns", "decorator_list", "type_params"}:
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST) and not isinstance(child, ast.JoinedStr):
                yield from code_of(child)


def mutants_of(path: Path) -> Iterator[Mutant]:
    source = path.read_bytes()
    lines = [0]
    for line in source.splitlines(keepends=True):
        lines.append(lines[-1] + len(line))
    for node in code_of(ast.parse(source)):
        for part, text in changes(node, source.decode()):
            assert part.end_lineno is not None
            assert part.end_col_offset is not None
            start = lines[part.lineno - 1] + part.col_offset
            end = lines[part.end_lineno - 1] + part.end_col_offset
            file, column = str(path.relative_to(CHECKOUT)), part.col_offset + 1
            yield Mutant(file, part.lineno, column, start, end, text)


def seen_by(copy: Path, mutant: Mutant, group: str) -> str:
    """The first test that fails where a change is made; "" if all pass."""
    tests = [f"tests/{name}" for name in GROUPS[group]]
    options = ["-q", "-x", "-n", "0", "-rfE", f"--timeout={HANG_SECONDS}", "-p", "no:cacheprovider"]
    changed = copy / mutant.file
    source = changed.read_bytes()
    mutant.write(source, changed)
    done = subprocess.run(
        [copy / ".venv/bin/python", "-m", "pytest", *options, "-m", "not exhaustive", *tests],
        cwd=copy,
        check=False,
        capture_output=True,
        text=True,
    )
    changed.write_bytes(source)
    named = re.search(r"^(?:FAILED|ERROR) (?:tests/)?(\S+)", done.stdout, flags=re.MULTILINE)
    return "" if done.returncode == 0 else named[1] if named else f"exit code {done.returncode}"


def drawn(seed: str, count: int) -> list[tuple[Mutant, str]]:
    """Draw changes, each with its group."""
    everything = [
        (mutant, group)
        for group in GROUPS
        for path in files_of(CHECKOUT / group)
        for mutant in mutants_of(path)
    ]
    return random.Random(seed).sample(everything, count)


def files_of(place: Path) -> list[Path]:
    return sorted(place.rglob("*.py")) if place.is_dir() else [place]


@contextmanager
def copied() -> Iterator[Path]:
    """Make a copy of the checkout with an environment of its own."""
    with tempfile.TemporaryDirectory(prefix="ds-flow-mutants-") as name:
        copy = Path(name, "checkout")
        shutil.copytree(CHECKOUT, copy, ignore=shutil.ignore_patterns(*NOT_COPIED), symlinks=True)
        for folder in ("out", "log"):
            (copy / folder).mkdir(exist_ok=True)
        subprocess.run(["make", "--quiet", "setup"], cwd=copy, check=True)
        yield copy


def main() -> None:
    """Draw, try and tell. The tests have to be green before."""
    seed, count = os.environ.get("SEED", "0"), int(os.environ.get("MUTANTS", "150"))
    log = CHECKOUT / "build" / f"mutants-{seed}.log"
    log.parent.mkdir(exist_ok=True)
    log.touch()
    found = dict(line.split("\t") for line in log.read_text(encoding="utf-8").splitlines())
    with copied() as copy, log.open("a", encoding="utf-8") as file:
        for number, (mutant, group) in enumerate(drawn(seed, count), 1):
            said = mutant.told((CHECKOUT / mutant.file).read_bytes())
            if said not in found:
                found[said] = seen_by(copy, mutant, group)
                file.write(f"{said}\t{found[said]}\n")
                file.flush()
            verdict = f"seen by {found[said]}" if found[said] else "SURVIVED"
            print(f"{number}/{count} {verdict}\n    {said}", flush=True)
    seen = sum(map(bool, found.values()))
    print(f"seed {seed}: {seen} of {len(found)} changes seen; {log} keeps them")


if __name__ == "__main__":
    main()
