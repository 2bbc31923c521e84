"""Pin the newest version of everything, transitive and development too, in pyproject.toml.

uv.lock names the package index it was made with, so it stays out of the repository; exact
constraints give the same versions from any index.
"""

import subprocess
import tempfile
import tomllib
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BEGIN = "# pins: begin, written by `make lock`\n"
END = "# pins: end\n"


def uv(*arguments: str, cwd: Path, stdin: str | None = None) -> list[str]:
    done = subprocess.run(
        [ROOT / ".ci/uv", *arguments],
        cwd=cwd,
        input=stdin,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return done.stdout.splitlines()


def resolve(pyproject: str) -> list[str]:
    """Every requirement of the project and its dependency groups, as `name==version ; marker`."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "pyproject.toml").write_text(pyproject)
        return uv(
            *("export", "--quiet", "--all-groups", "--no-emit-project"),
            *("--no-hashes", "--no-annotate", "--no-header"),
            cwd=Path(folder),
        )


def resolve_backend(pyproject: str) -> list[str]:
    requires = tomllib.loads(pyproject)["build-system"]["requires"]
    return uv(
        *("pip", "compile", "--quiet", "--no-annotate", "--no-header", "--no-config", "-"),
        cwd=ROOT,
        stdin="\n".join(requires),
    )


def setting(name: str, pins: Iterable[str]) -> str:
    lines = "".join(f'    "{pin}",\n' for pin in sorted(pins))
    return f"{name} = [\n{lines}]\n"


def main() -> None:
    path = ROOT / "pyproject.toml"
    before, rest = path.read_text().split(BEGIN)
    after = rest.split(END)[1]
    unpinned = before + after
    pins = setting("constraint-dependencies", resolve(unpinned))
    pins += setting("build-constraint-dependencies", resolve_backend(unpinned))
    path.write_text(before + BEGIN + pins + END + after)


if __name__ == "__main__":
    main()
