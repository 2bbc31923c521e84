"""The plan repeats settings, since images carry no pydantic: here the two are held equal."""

from dataclasses import MISSING, Field, fields
from typing import Any

import pytest
from pydantic import BaseModel

from ds_flow.core.plan import DockerSite, LsfSite, Options, Site, SlurmSite, StageOptions
from ds_flow.settings.compute import Analyze, Compute, Docker, Lsf, Slurm
from ds_flow.settings.schema import Csv, Running


def defaults(kind: type[Any]) -> dict[str, object]:
    """Each field of a plan's dataclass with its default."""
    return {own.name: default_of(own) for own in fields(kind)}


def default_of(own: Field[Any]) -> object:
    if own.default_factory is not MISSING:
        return own.default_factory()
    return own.default


def settings_of(model: BaseModel) -> dict[str, object]:
    """Each setting of a section with its default."""
    return model.model_dump()


@pytest.mark.parametrize(
    ("plan", "settings"),
    [
        (LsfSite, settings_of(Lsf())),
        (SlurmSite, settings_of(Slurm())),
        (DockerSite, {"command": Compute().docker_command, **settings_of(Docker())}),
    ],
    ids=["lsf", "slurm", "docker"],
)
def test_a_plan_has_each_setting_of_a_backend_with_the_same_default(
    plan: type[Any], settings: dict[str, object]
) -> None:
    assert defaults(plan) == settings


def test_a_plan_has_each_setting_of_a_stage() -> None:
    assert defaults(StageOptions).keys() == Analyze.model_fields.keys()


def test_where_a_stage_has_no_default_of_its_own_the_plans_is_that_of_all_stages() -> None:
    own = {"cpus": Analyze().cpus, "memory_mb": Analyze().memory_mb}
    for_all = {"executor": Compute().executor, "limit_minutes": Running().limit_minutes}

    assert defaults(StageOptions).items() >= {**own, **for_all}.items()


def test_a_plan_has_the_settings_that_decide_outputs_with_the_same_default() -> None:
    compute = settings_of(Compute())
    shared = {name: compute[name] for name in ("transform", "shard_mb", "max_shards")}

    assert defaults(Options).items() >= {**settings_of(Csv()), **shared}.items()
    for name in ("memory_factor", "memory_limit_mb"):
        assert defaults(Site)[name] == compute[name]
