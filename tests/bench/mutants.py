"""Change the code at random, one place at a time, and name each change that no test sees.

`make mutants` draws MUTANTS (150) changes by SEED from the modules below: a condition negated, a
statement dropped, a constant changed. Each is made in a copy of the checkout, where the tests of
its group run until one fails. A survivor is either the same program, or a test is missing.
"""

import ast
import os
import random
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
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
        *("line/test_two_users.py", "faults/test_moves.py"),
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
    start: int
    end: int
    text: str

    def write(self, source: bytes, path: Path) -> None:
        path.write_bytes(source[: self.start] + self.text.encode() + source[self.end :])

    def told(self, source: bytes) -> str:
        was = " ".join(source[self.start : self.end].decode().split())
        return f"{self.file}:{self.line}: {was[:100]}  ->  {self.text[:100]}"


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
            yield Mutant(str(path.relative_to(CHECKOUT)), part.lineno, start, end, text)


def seen_by(copy: Path, mutant: Mutant, group: str) -> str:
    """The first test that fails where a change is made; "" if all pass."""
    tests = [f"tests/{name}" for name in GROUPS[group]]
    options = ["-q", "-x", "-n", "0", "-rfE", f"--timeout={HANG_SECONDS}", "-p", "no:cacheprovider"]
    changed = copy / mutant.file
    source = changed.read_bytes()
    mutant.write(source, changed)
    done = subprocess.run(
        [copy / ".venv" / "bin" / "python", "-m", "pytest", *options, *tests],
        cwd=copy,
        check=False,
        capture_output=True,
        text=True,
    )
    changed.write_bytes(source)
    named = re.search(r"^(?:FAILED|ERROR) (?:tests/)?(\S+)", done.stdout, flags=re.MULTILINE)
    return "" if done.returncode == 0 else named[1] if named else f"exit code {done.returncode}"


def main() -> None:
    """Draw, try and tell. The tests have to be green before."""
    seed, count = os.environ.get("SEED", "0"), int(os.environ.get("MUTANTS", "150"))
    drawn = [
        (mutant, group)
        for group in GROUPS
        for path in sorted((CHECKOUT / group).rglob("*.py"))
        for mutant in mutants_of(path)
    ]
    drawn = random.Random(seed).sample(drawn, count)
    seen = 0
    with tempfile.TemporaryDirectory(prefix="ds-flow-mutants-") as name:
        copy = Path(name, "checkout")
        shutil.copytree(CHECKOUT, copy, ignore=shutil.ignore_patterns(*NOT_COPIED), symlinks=True)
        for folder in ("out", "log"):
            (copy / folder).mkdir(exist_ok=True)
        subprocess.run(["make", "--quiet", "setup"], cwd=copy, check=True)
        for number, (mutant, group) in enumerate(drawn, 1):
            test = seen_by(copy, mutant, group)
            seen += bool(test)
            said = mutant.told((CHECKOUT / mutant.file).read_bytes())
            print(f"{number}/{count} {f'seen by {test}' if test else 'SURVIVED'}", flush=True)
            print(f"    {said}", flush=True)
    print(f"seed {seed}: {seen} of {count} changes seen")


if __name__ == "__main__":
    main()
