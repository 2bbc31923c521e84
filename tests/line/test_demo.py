"""`make demo` tells a true story, again and again, and touches nothing of the user's."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ds_flow.core.program import CHECKOUT
from shown import plain


def demo(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, CHECKOUT / ".ci/demo.py", folder],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        cwd=folder.parent,
    )


def shown_by_the_readme() -> list[str]:
    text = (CHECKOUT / "README.md").read_text(encoding="utf-8")
    lines = text.partition("$ make demo\n")[2].partition("```")[0].splitlines()
    return [plain(line.replace("build/demo", "demo")) for line in lines]


def names_and_times(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}


def test_the_demo_tells_what_happened_twice_and_leaves_the_projects_own_files_alone(
    tmp_path: Path,
) -> None:
    before = [names_and_times(CHECKOUT / name) for name in ("data", "config")]
    first, second = demo(tmp_path / "demo"), demo(tmp_path / "demo")
    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    assert [names_and_times(CHECKOUT / name) for name in ("data", "config")] == before
    (manifest,) = (tmp_path / "demo/out").glob("manifest_*.json")
    told = json.loads(manifest.read_text())
    for output in told["outputs"]:
        assert output["name"] in second.stdout
    (rejected,) = told["rejected"]
    assert f"line {rejected['line']}: {rejected['reason']}" in second.stdout
    assert "003,Zoë Lindqvist,Physics,74,5,asked twice" in second.stdout
    assert '008         Anne "Annie" O\'Neill  Algebra I   100.00' in second.stdout
    for stage in ("process", "combine", "analyze"):
        assert f"   {stage} " in second.stdout
    assert "http://127.0.0.1:8321/" in second.stdout
    assert "\x1b" not in second.stdout
    said = shown_by_the_readme()
    assert said
    assert set(said) <= {plain(line) for line in second.stdout.splitlines()}


@pytest.mark.exhaustive
def test_the_demo_uses_its_own_settings_whatever_the_environment_says(tmp_path: Path) -> None:
    done = demo(tmp_path / "demo", DS_FLOW_PATHS__OUTPUT_DIR=str(tmp_path / "elsewhere"))
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "elsewhere").exists()


def test_the_demo_removes_no_folder_that_it_did_not_make(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/kept").touch()
    done = demo(tmp_path / "mine")
    assert done.returncode == 1
    assert "was not made by the demo" in done.stderr
    assert (tmp_path / "mine/kept").exists()
