"""The last step's look back at the last run of the same selection."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ds_flow.core.manifest import Manifest
from ds_flow.core.plan import Options, Plan, StageOptions
from ds_flow.work.fingerprint import settings_fingerprint
from samples import BATCH, manifest, read
from steps import publish

STAGES = {name: StageOptions() for name in ("process", "combine", "analyze")}


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    """A rerun of what run 1 had published, with other content now."""
    options = Options(
        project_name="test",
        root=str(tmp_path),
        output_dir=str(tmp_path),
        log_dir=str(tmp_path),
        tag="spring",
        stages=STAGES,
    )
    made = Plan(
        batch=BATCH,
        trigger="schedule",
        formed_at="",
        files=(),
        options=options,
        selection="all",
        compare_with="1",
    )
    old = json.dumps(run("1", "old", options).to_json())
    (tmp_path / "manifest_1.json").write_text(old)
    return made


def run(run_id: str, content: str, options: Options) -> Manifest:
    made = manifest(run_id, inputs=[read("data/a.csv", "1")])
    outputs = tuple(replace(out, content_sha256=content) for out in made.outputs)
    fingerprint = settings_fingerprint(options)
    return replace(made, outputs=outputs, tag=options.tag, settings_fingerprint=fingerprint)


@pytest.mark.parametrize(
    ("options", "because"),
    [
        ({}, ("other",)),
        ({"tag": "autumn"}, ("tag",)),
        ({"delimiter": ";"}, ("settings",)),
        ({"required_columns": ("id",)}, ("settings",)),
        ({"tag": "autumn", "delimiter": ";"}, ("settings", "tag")),
        ({"shard_mb": 1}, ("other",)),  # decides no content
    ],
)
def test_the_tag_and_the_other_settings_are_told_apart(
    plan: Plan, options: dict[str, Any], because: tuple[str, ...]
) -> None:
    now = replace(plan.options, **options)
    made = publish.compare(replace(plan, options=now), run("2", "new", now))
    assert made.compared_with == "1"
    assert [(out.compared, out.because) for out in made.outputs] == [("changed", because)]


def test_where_there_was_no_such_run_or_its_manifest_is_gone_nothing_is_compared(
    plan: Plan,
) -> None:
    new = run("2", "new", plan.options)
    for run_id in ("", "7"):
        assert publish.compare(replace(plan, compare_with=run_id), new) == new
    Path(plan.options.output_dir, "manifest_1.json").write_text("{")
    assert publish.compare(plan, new) == new
