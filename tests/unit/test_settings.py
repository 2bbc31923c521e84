"""Settings: what a file, `.env` and the environment result in, and the message of each fault."""

import json
import re
import string
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from pydantic import BaseModel

from ds_flow.core.environment import CARD
from ds_flow.core.errors import SettingsError
from ds_flow.core.globs import example, matches
from ds_flow.core.plan import Options
from ds_flow.core.program import CHECKOUT
from ds_flow.core.reading import Reading
from ds_flow.settings.compute import Compute, Stage
from ds_flow.settings.load import Settings, effective, find_settings, load_settings, settings_schema
from ds_flow.settings.people import Expected
from ds_flow.settings.schema import RENAMED, Keys, Schedule
from ds_flow.settings.types import Executor
from ds_flow.work.fingerprint import settings_fingerprint

FIVE = """\
project_name: ds_flow
paths:
  input_pattern: data/student_*.csv
  output_dir: out
  log_dir: log
"""
REFERENCE = CHECKOUT / "config" / "settings.yaml"

Load = Callable[..., Settings]
same_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    folder = tmp_path / "project" / "config"
    folder.mkdir(parents=True)
    return folder / "settings.yaml"


@pytest.fixture
def project(file: Path) -> Load:
    """A project with the given settings file, .env and environment, loaded."""

    def loaded(text: str = FIVE, dotenv: str = "", **environ: str) -> Settings:
        file.write_text(text)
        (file.parent.parent / ".env").write_text(dotenv)
        return load_settings(file, environ)

    return loaded


@pytest.fixture
def faults(project: Load, file: Path) -> Callable[..., list[str]]:
    """The message lines for faulty settings, without the project's folder."""

    def lines(*given: str, **environ: str) -> list[str]:
        with pytest.raises(SettingsError) as caught:
            project(*given, **environ)
        return str(caught.value).replace(f"{file.parent.parent}/", "").split("\n")

    return lines


Faults = Callable[..., list[str]]


# --------------------------------------------------------------------------- what holds


def test_a_file_with_the_five_keys_is_complete(project: Load, tmp_path: Path) -> None:
    made = project(FIVE + "compute: {lsf_queue: long}\n")
    root = tmp_path / "project"
    assert made.root == root
    assert made.pattern == f"{root}/data/student_*.csv"
    assert made.inbox == root / "data"
    assert made.output_dir == root / "out"
    assert made.work_root == root / "out" / ".work"
    assert made.log_dir == root / "log"
    assert made.ledger == root / "out" / "ledger.db"
    assert made.batch.quiet_seconds == 1
    assert made.stages["process"].queue == "long"
    assert made.stages["analyze"].command == ("wc", "-l")


def test_absolute_paths_stay_as_they_are(project: Load) -> None:
    made = project(
        "project_name: x\npaths: {input_pattern: /in/*.csv, output_dir: /o, log_dir: /l}"
    )
    assert (made.pattern, str(made.output_dir), str(made.log_dir)) == ("/in/*.csv", "/o", "/l")


def test_a_detour_is_taken_out_of_a_path(project: Load, file: Path) -> None:
    made = project(FIVE.replace("data/", "./x/../data/").replace(": out", ": y/../out"))
    assert made.pattern == f"{file.parent.parent}/data/student_*.csv"
    assert made.output_dir == file.parent.parent / "out"


def test_the_file_is_the_one_asked_for_then_the_variable_then_the_checkouts() -> None:
    environ = {"DS_FLOW_CONFIG": "b.yaml"}
    assert find_settings("a.yaml", environ) == Path("a.yaml")
    assert find_settings(None, environ) == Path("b.yaml")
    assert find_settings(None, {}) == REFERENCE


def test_a_linked_settings_file_belongs_to_the_folder_it_stands_in(
    file: Path, tmp_path: Path
) -> None:
    (tmp_path / "elsewhere.yaml").write_text(FIVE)
    file.symlink_to(tmp_path / "elsewhere.yaml")
    assert load_settings(file, {}).root == tmp_path / "project"


def test_a_stage_keeps_its_default_command_when_another_stage_is_set(project: Load) -> None:
    made = project(FIVE + "compute: {stages: {process: {cpus: 2}, analyze: {cpus: 3}}}")
    assert made.stages["process"].cpus == 2
    assert made.stages["analyze"].cpus == 3
    assert made.stages["analyze"].command == ("wc", "-l")


def test_a_stage_goes_over_what_holds_for_all_stages(project: Load) -> None:
    text = """\
run: {limit_minutes: 0.5}
compute:
  lsf_queue: long
  docker_image: all
  stages:
    combine: {queue: short, image: own, limit_minutes: 0.25}
"""
    made = project(FIVE + text).stages
    assert (made["process"].queue, made["process"].image) == ("long", "all")
    assert made["process"].limit_minutes == 0.5
    assert (made["combine"].queue, made["combine"].image) == ("short", "own")
    assert made["combine"].limit_minutes == 0.25


def test_an_empty_section_holds_its_defaults(project: Load) -> None:
    assert project(FIVE + "run:\ncompute:\n  stages:\n    process:\n").run.attempts == 3


@pytest.mark.parametrize("name", ["no", "on", "2026-01-02", "2026-13-45", "'7'", "007", "1.10"])
def test_a_project_may_be_named_what_yaml_takes_for_truth_or_a_date(
    project: Load, name: str
) -> None:
    made = project(FIVE.replace("ds_flow", name))
    assert made.project_name == name.strip("'")


@pytest.mark.parametrize("tab", ["tab", r"'\t'", r'"\t"'])
def test_a_tab_can_be_written_in_three_ways(project: Load, tab: str) -> None:
    assert project(FIVE + f"csv: {{delimiter: {tab}}}").options().delimiter == "\t"


def test_a_run_is_told_whether_it_has_a_card(project: Load, faults: Faults) -> None:
    assert project(FIVE).run_environment({})[CARD] == "false"
    assert project(f"{FIVE}report: {{card: true}}\n").run_environment({})[CARD] == "true"
    (fault,) = faults(f"{FIVE}report: {{card: perhaps}}\n")
    assert "report.card" in fault


def test_the_environment_goes_over_dotenv_over_the_file(project: Load) -> None:
    text, variable = FIVE + "run: {attempts: 1, max_parallel: 7}", "DS_FLOW_RUN__ATTEMPTS"
    assert project(text).run.attempts == 1
    assert project(text, f"{variable}=2").run.attempts == 2
    assert project(text, f"{variable}=2", **{variable: "4"}).run.attempts == 4
    assert project(text, f"{variable}=2").run.max_parallel == 7


@same_folder
@given(st.integers(1, 100), st.integers(1, 100), st.integers(1, 100))
def test_the_environment_always_wins(project: Load, low: int, middle: int, high: int) -> None:
    made = project(
        f"{FIVE}run: {{attempts: {low}}}",
        f"DS_FLOW_RUN__ATTEMPTS={middle}",
        DS_FLOW_RUN__ATTEMPTS=str(high),
    )
    assert made.run.attempts == high


def test_a_variable_can_hold_a_list_or_a_section(project: Load) -> None:
    made = project(
        FIVE + "run: {max_parallel: 7}",
        DS_FLOW_COMPUTE__STAGES__ANALYZE__COMMAND="[sort, -n]",
        DS_FLOW_RUN="{attempts: 5}",
    )
    assert made.stages["analyze"].command == ("sort", "-n")
    assert (made.run.attempts, made.run.max_parallel) == (5, 7)


@pytest.mark.parametrize("text", ["007", "yes", "1.10", "a: b", "#x", "null"])
def test_a_variable_that_sets_text_is_taken_as_it_stands(project: Load, text: str) -> None:
    assert project(DS_FLOW_PROJECT_NAME=text).project_name == text


NUMBERS = ("8", "+8", "08", "8.0", "007", "1_0", "010", "-010", "0x10", "0b11", "0o10", "1:30")


@pytest.mark.parametrize("key", ["run.attempts", "run.limit_minutes", "run.min_free_mb"])
@pytest.mark.parametrize("text", NUMBERS)
def test_a_number_means_the_same_in_yaml_and_in_a_variable(
    project: Load, text: str, key: str
) -> None:
    section, name = key.split(".")
    variable = f"DS_FLOW_{section}__{name}".upper()
    ways = {
        "YAML": lambda: project(f"{FIVE}{section}: {{{name}: {text}}}\n"),
        "quoted": lambda: project(f"{FIVE}{section}: {{{name}: '{text}'}}\n"),
        "dotenv": lambda: project(FIVE, f"{variable}={text}\n"),
        "environment": lambda: project(FIVE, **{variable: text}),
        "section": lambda: project(FIVE, **{f"DS_FLOW_{section}".upper(): f"{{{name}: {text}}}"}),
    }
    assert len({_number_or_fault(way, section, name) for way in ways.values()}) == 1


def _number_or_fault(way: Callable[[], Settings], section: str, name: str) -> float | str:
    try:
        return float(getattr(getattr(way(), section), name))
    except SettingsError as error:
        return str(error).partition(": ")[2].partition(": ")[2]


@pytest.mark.parametrize(
    "key", ["run.attempts", "batch.max_wait_seconds", "retention.output_count"]
)
def test_a_number_that_is_octal_or_decimal_is_a_fault_that_says_so(
    faults: Faults, key: str
) -> None:
    section, name = key.split(".")
    (fault,) = faults(f"{FIVE}{section}:\n  {name}: 010\n")
    assert fault == (
        f"{AT}:7: {key}: may be 8 (octal) or 10; write it without the leading zero (it is '010')"
    )


def test_markers_and_sets_are_read(project: Load) -> None:
    made = project(
        f"{FIVE}watch: {{marker: '{{name}}.done', marker_minutes: 5}}\n"
        "batch: {set: {by: 'student_(?P<day>.+)', key: day, expect: 2, at_latest: 06:30}}\n"
    )
    assert (made.watch.marker, made.watch.marker_minutes) == ("{name}.done", 5)
    assert made.batch.rule is not None
    assert made.batch.rule.deadline == "06:30"
    assert made.batch.rule.value_of("data/student_7") == "7"
    assert project(f"{FIVE}batch: {{set: null}}\n").batch.rule is None


def test_a_time_of_day_needs_no_quotes(project: Load) -> None:
    text = FIVE + "expect: [{pattern: data/a*, by: 16:30}]\n"
    assert project(text).expect[0].by == "16:30"


def test_text_that_yaml_wants_in_quotes_is_a_fault_that_says_so(faults: Faults) -> None:
    (fault,) = faults(f"{FIVE}schedule: [{{name: a, cron: @daily}}]\n")
    assert fault.endswith("put the text in quotes")


def test_a_pattern_that_starts_with_a_bracket_is_text_in_a_variable(faults: Faults) -> None:
    (fault,) = faults(DS_FLOW_PATHS__INPUT_PATTERN="[ab]*.csv")
    assert "give the inbox its own folder" in fault  # the value was not parsed as a list


def test_what_is_secret_is_judged_by_the_value_in_force(project: Load) -> None:
    environ = {"MODE": "1", "TOKEN": "hunter23"}
    made = project(FIVE, "MODE=production\nTOKEN=x\n", **environ)
    assert made.secrets == {"hunter23"}
    assert made.run_environment(environ)["DS_FLOW_MASK"] == "TOKEN"


def test_variables_that_are_not_settings_are_passed_over(project: Load) -> None:
    project(DS_FLOW_CONFIG="x", DS_FLOW_ATTEMPT="a/1", DS_FLOW_JOB="1", DS_FLOW_REQUIRE="docker")


def test_the_tag_comes_from_the_environment_over_dotenv(project: Load) -> None:
    assert project().tag == ""
    assert project(FIVE, "PROCESS_TAG=low").tag == "low"
    assert project(FIVE, "PROCESS_TAG=low", PROCESS_TAG="high").options().tag == "high"


def test_dotenv_is_given_on_as_it_stands(project: Load) -> None:
    made = project(FIVE, "export A='x ${HOME} y'\n# no\nB=\nC\n")
    assert made.dotenv == {"A": "x ${HOME} y", "B": ""}


def test_secrets_are_the_long_values_of_dotenv_that_are_not_our_own(project: Load) -> None:
    dotenv = "TOKEN=hunter22\nPIN=12345\nPROCESS_TAG=autumn-term\nDS_FLOW_CSV__ENCODING=latin-1\n"
    made = project(FIVE, dotenv)
    assert made.secrets == {"hunter22"}
    assert "hunter22" not in repr(made)
    shown = effective(made)
    assert "hunter22" not in shown
    assert "TOKEN: ***" in shown


# --------------------------------------------------------------------------- options


def test_every_option_is_told_by_the_settings(project: Load) -> None:
    made = project(
        FIVE.replace("data/", "inbox/")
        + "csv: {delimiter: ';', encoding: UTF-16, first_column: row, columns: strict,"
        " sheet: Marks, max_unpacked_mb: 5, max_unpacked_ratio: 6,"
        " for: [{pattern: 'inbox/uk_*.csv', delimiter: tab}],"
        " max_columns: 9, required_columns: [id]}\n"
        + "outputs: {parquet: true}\nprofile: false\nprivacy: {hide_columns: [name]}\n"
        + "compute: {transform: 'a.b:c', shard_mb: 0.5, max_shards: 3, memory_factor: 2,"
        " memory_limit_mb: 9000}\n",
        PROCESS_TAG="t",
    ).options()
    default = project().options()
    same = {
        name
        for name in (option.name for option in fields(made))
        if getattr(made, name) == getattr(default, name)
    }
    assert same == {"project_name", "root", "output_dir", "log_dir", "stages"}
    assert made.encoding == "utf-16"


def test_a_list_of_encodings_is_taken_in_its_order(project: Load) -> None:
    made = project(f"{FIVE}csv: {{encoding: [UTF-8, shift_jis, cp1252]}}\n")
    assert made.csv.encoding == ("utf-8", "shift_jis", "cp1252")
    assert project(f"{FIVE}csv: {{encoding: [cp1252]}}\n").csv.encoding == "cp1252"
    given = project(FIVE, "DS_FLOW_CSV__ENCODING=[utf-8-sig, utf-8, cp1252]\n")
    assert given.csv.encoding == ("utf-8-sig", "utf-8", "cp1252")
    again = Options.from_json(json.loads(json.dumps(asdict(given.options()))))
    assert again == given.options()


def test_a_source_of_the_settings_is_as_they_say_and_else_as_all_files(project: Load) -> None:
    text = "csv: {encoding: cp1252, for: [{pattern: 'data/uk_*.csv', delimiter: tab}]}\n"
    options = project(FIVE + text).options()
    assert options.reading("data/uk_a.csv") == Reading(encoding="cp1252", delimiter="\t")
    assert options.reading("data/a.csv") == Reading(encoding="cp1252")
    shown = effective(project(FIVE + text))
    assert project(shown).options() == options


def test_a_plan_with_sources_may_be_moved_with_its_project(project: Load) -> None:
    text = "csv: {for: [{pattern: 'data/uk_*.csv', delimiter: tab}, {pattern: /else/x.csv}]}\n"
    options = project(FIVE + text).options()
    row = json.loads(json.dumps(asdict(options.portable())))
    assert [one["pattern"] for one in row["for_"]] == ["data/uk_*.csv", "/else/x.csv"]
    moved = Options.from_json(row).located("/new/out")
    assert moved.reading("data/uk_a.csv").delimiter == "\t"
    assert moved.for_[1].pattern == "/else/x.csv"


def test_how_a_source_is_read_is_part_of_the_fingerprint_and_the_place_is_not(
    project: Load,
) -> None:
    text = "csv: {{for: [{{pattern: 'data/uk_*.csv', delimiter: '{}'}}]}}\n"
    options = project(FIVE + text.format(";")).options()
    moved = replace(options, for_=options.portable().located("/new/out").for_, root="/new")
    assert settings_fingerprint(options) == settings_fingerprint(moved)
    others = {
        settings_fingerprint(project(FIVE + more).options())
        for more in ("", text.format("|"), "csv: {encoding: [utf-8, cp1252]}\n")
    }
    assert settings_fingerprint(options) not in others
    assert len(others) == 3


# --------------------------------------------------------------------------- faults


AT = "config/settings.yaml"

FAULTS = {
    "days that are none": ("retention:\n  log_days: 0\n", 7, "retention.log_days", "greater"),
    "no time of day": (
        "expect:\n- {pattern: data/a*, by: '25:00'}\n",
        7,
        "expect.0.by",
        "pattern",
    ),
    "a column without a name": (
        "csv:\n  required_columns: ['']\n",
        7,
        "csv.required_columns.0",
        "at least 1 character",
    ),
    "an unknown zone": (
        "expect:\n- {pattern: data/a*, by: '05:00', timezone: Mars/Base}\n",
        7,
        "expect.0.timezone",
        "time zone",
    ),
    "unknown key": ("run:\n  attemps: 3\n", 7, "run.attemps", "did you mean run.attempts?"),
    "unknown section": ("runs: {}\n", 6, "runs", "did you mean run?"),
    "key of another section": ("attempts: 3\n", 6, "attempts", "did you mean run.attempts?"),
    "wrong type": (
        "run:\n  attempts: many\n",
        7,
        "run.attempts",
        "attempts: should be a whole number (it is 'many')",
    ),
    "a fraction": ("run:\n  attempts: 1.5\n", 7, "run.attempts", "should be a whole number"),
    "words for a number": ("run:\n  limit_minutes: long\n", 7, "run.limit_minutes", "a number"),
    "a word for a truth": ("run:\n  fork: maybe\n", 7, "run.fork", "should be true or false"),
    "an hour that is none": (
        "schedule:\n- {name: a, cron: 0 25 * * *}\n",
        7,
        "schedule.0.cron",
        "cron: in '25', the last value (25) is higher than the maximum value (23)",
    ),
    "truth for a number": ("run:\n  attempts: yes\n", 7, "run.attempts", "(it is 'yes')"),
    "scalar for a section": ("csv: 5\n", 6, "csv", "mapping"),
    "list for a section": ("csv: [1]\n", 6, "csv", "mapping"),
    "item of a list": (
        "compute:\n  stages:\n    analyze:\n      command:\n      - wc\n      - [1]\n",
        11,
        "compute.stages.analyze.command.1",
        "text",
    ),
    "given twice": ("run:\n  attempts: 3\n  attempts: 4\n", 8, "run.attempts", "settings.yaml:7"),
    "out of range": ("run:\n  attempts: 0\n", 7, "run.attempts", "(it is '0')"),
    "no time to settle": ("watch:\n  quiet_seconds: 0\n", 7, "watch.quiet_seconds", "greater"),
    "negative time": ("watch:\n  rescan_seconds: -1\n", 7, "watch.rescan_seconds", "greater"),
    "batch without files": ("batch:\n  max_files: 0\n", 7, "batch.max_files", "(it is '0')"),
    "endless": ("batch:\n  max_wait_seconds: inf\n", 7, "batch.max_wait_seconds", "finite"),
    "not a number": ("batch:\n  quiet_seconds: nan\n", 7, "batch.quiet_seconds", "finite"),
    "unknown executor": ("compute:\n  executor: pbs\n", 7, "compute.executor", "'local'"),
    "transform without function": (
        "compute:\n  transform: mine.py\n",
        7,
        "compute.transform",
        "`module:function`",
    ),
    "command of a stage that has none": (
        "compute:\n  stages:\n    process:\n      command: [x]\n",
        9,
        "compute.stages.process.command",
        "did you mean compute.stages.analyze.command?",
    ),
    "unknown encoding": ("csv:\n  encoding: klingon\n", 7, "csv.encoding", "'klingon'"),
    "no encoding": ("csv:\n  encoding: []\n", 7, "csv.encoding", "a list of some"),
    "a mapping for an encoding": ("csv:\n  encoding: {a: b}\n", 7, "csv.encoding", "list of some"),
    "unknown encoding in a list": (
        "csv:\n  encoding: [utf-8, klingon]\n",
        7,
        "csv.encoding",
        "unknown text encoding 'klingon'",
    ),
    "an encoding after one that takes its text": (
        "csv:\n  encoding: [cp1252, utf-8]\n",
        7,
        "csv.encoding",
        "cp1252 would read text in utf-8, too; put utf-8 before it",
    ),
    "an encoding after one that takes any bytes": (
        "csv:\n  encoding: [utf-8, latin-1, cp1252]\n",
        7,
        "csv.encoding",
        "latin-1 would read text in cp1252, too; put cp1252 before it",
    ),
    "a source without a pattern": (
        "csv:\n  for: [{encoding: utf-8}]\n",
        7,
        "csv.for.0.pattern",
        "is required",
    ),
    "a source with a setting for all": (
        "csv:\n  for: [{pattern: a.csv, columns: union}]\n",
        7,
        "csv.for.0.columns",
        "unknown setting",
    ),
    "encoding not of text": ("csv:\n  encoding: base64\n", 7, "csv.encoding", "text encoding"),
    "delimiter": ("csv:\n  delimiter: ':'\n", 7, "csv.delimiter", "'auto'"),
    "level": ("logging:\n  level: loud\n", 7, "logging.level", "'INFO'"),
    "cron": ("schedule:\n- {name: a, cron: 99 2 * * *}\n", 7, "schedule.0.cron", "99"),
    "cron of seconds": (
        "schedule:\n- {name: a, cron: 1 2 * * * *}\n",
        7,
        "schedule.0.cron",
        "five",
    ),
    "cron that never comes": (
        "schedule:\n- name: a\n  cron: 0 2 30 2 *\n",
        8,
        "schedule.0.cron",
        "never comes",
    ),
    "weekday": ("schedule:\n- {name: a, cron: 0 2 * * 8}\n", 7, "schedule.0.cron", "0 to 7"),
    "time zone": (
        "schedule:\n- name: a\n  cron: 0 2 * * *\n  timezone: Europe/Atlantis\n",
        9,
        "schedule.0.timezone",
        "not a time zone",
    ),
    "selection": (
        "schedule:\n- name: a\n  cron: 0 2 * * *\n  select: al\n",
        9,
        "schedule.0.select",
        "since_last or a pattern",
    ),
    "schedule without cron": ("schedule:\n- name: a\n", 7, "schedule.0.cron", "is required"),
    "two schedules of one name": (
        "schedule:\n- {name: a, cron: 0 2 * * *}\n- {name: a, cron: 0 3 * * *}\n",
        8,
        "schedule.1.name",
        "another schedule is named 'a'",
    ),
    "marker that is the file itself": (
        "watch:\n  marker: '{name}'\n",
        7,
        "watch.marker",
        "should be the name of a file, such as {name}.done",
    ),
    "marker that every input would be": (
        "watch:\n  marker: '{stem}.csv'\n",
        7,
        "watch.marker",
        "every input, such as student_0.csv, would be a marker",
    ),
    "set without its group": (
        "batch:\n  set: {by: 'student_(?P<day>.*)', key: date, expect: 2}\n",
        7,
        "batch.set",
        "by has no group 'date', such as (?P<date>...)",
    ),
    "set by what is no expression": (
        "batch:\n  set:\n    by: 'student_(?P<day>'\n    key: day\n    expect: 2\n",
        8,
        "batch.set.by",
        "is not a regular expression of RE2",
    ),
    "set whose time is none": (
        "batch:\n  set:\n    by: '(?P<d>.)'\n    key: d\n    expect: 2\n    at_latest: '24:00'\n",
        11,
        "batch.set.at_latest",
        "",
    ),
    "schedules in no list": ("schedule:\n", 6, "schedule", "should be a list"),
    "nickname that is no time": (
        "schedule:\n- {name: a, cron: '@reboot'}\n",
        7,
        "schedule.0.cron",
        "one of @yearly",
    ),
    "key that is a number": ("run:\n  7: 1\n", 7, "run.7", "unknown setting"),
    "text for text": ("compute:\n  lsf_queue: [7]\n", 7, "compute.lsf_queue", "quotes"),
}


@pytest.mark.parametrize(("text", "line", "key", "said"), FAULTS.values(), ids=FAULTS)
def test_a_fault_is_told_with_file_line_and_key(
    faults: Faults, text: str, line: int, key: str, said: str
) -> None:
    (fault,) = faults(FIVE + text)
    assert fault.startswith(f"{AT}:{line}: {key}: ")
    assert said in fault


BACKEND_FAULTS = {
    "slurm without sbatch": (
        "executor: slurm",
        ["compute.executor: slurm: no program 'sbatch' on PATH"],
    ),
    "lsf without bsub": ("executor: lsf", ["compute.executor: lsf: no program 'bsub' on PATH"]),
    "a stage's own": (
        "docker_image: x\n  stages: {combine: {executor: docker}}",
        ["compute.stages.combine.executor: docker: no program 'docker' on PATH"],
    ),
    "docker without an image": (
        "executor: docker\n  docker_command: sh",
        ["compute.executor: docker needs an image"],
    ),
}


@pytest.mark.parametrize(("text", "said"), BACKEND_FAULTS.values(), ids=BACKEND_FAULTS)
def test_a_backend_that_is_not_there_is_told_at_the_start(
    faults: Faults, tmp_path: Path, text: str, said: list[str]
) -> None:
    (tmp_path / "sh").touch(0o755)
    ledger = FIVE.replace("paths:\n", f"paths:\n  ledger: {tmp_path}/ledger.db\n")

    found = faults(f"{ledger}compute:\n  {text}\n", PATH=str(tmp_path))

    assert [fault.partition(" ")[2].partition(";")[0] for fault in found] == said


OWN_PLACES = {
    "the root": ("student_*.csv", "the project with its `.env`"),
    "above it": ("../student_*.csv", "the project with its `.env`"),
    "any folder of it": ("**/student_*.csv", "the project with its `.env`"),
    "the settings": ("config/student_*.csv", "the settings"),
    "the flows": ("flows/student_*.csv", "flows/"),
    "the outputs": ("out/student_*.csv", "output_dir, the ledger"),
    "the logs": ("log/student_*.csv", "log_dir"),
    "the checkout": (f"{CHECKOUT}/student_*.csv", "ds-flow itself"),
    "the daemon": (f"{CHECKOUT}/daemon/student_*.csv", "ds-flow itself"),
}


@pytest.mark.parametrize(("pattern", "held"), OWN_PLACES.values(), ids=OWN_PLACES)
@pytest.mark.parametrize("compute", ["", "compute: {executor: docker, docker_image: x}\n"])
def test_an_inbox_that_is_or_holds_what_is_ours_is_a_fault(
    faults: Faults, tmp_path: Path, pattern: str, held: str, compute: str
) -> None:
    (tmp_path / "docker").touch(0o755)

    text = FIVE.replace("data/student_*.csv", json.dumps(pattern))
    (fault,) = faults(text + compute, PATH=str(tmp_path))

    assert "paths.input_pattern: anyone who can write to" in fault
    assert f"could change {held}" in fault
    assert "give the inbox its own folder" in fault


def test_an_inbox_that_leads_to_the_project_by_a_link_is_a_fault(
    faults: Faults, file: Path
) -> None:
    (file.parent.parent / "data").symlink_to(".")

    (fault,) = faults()

    assert "could change the project with its `.env`" in fault


@pytest.mark.parametrize(("executor", "program"), [("lsf", "bsub"), ("slurm", "sbatch")])
def test_a_cluster_with_the_ledger_on_the_shared_outputs_is_a_fault(
    faults: Faults, tmp_path: Path, executor: str, program: str
) -> None:
    (tmp_path / program).touch(0o755)

    (fault,) = faults(f"{FIVE}compute: {{executor: {executor}}}\n", PATH=str(tmp_path))

    assert f"paths.ledger: with {executor}, output_dir is on a shared file system" in fault


def test_every_executor_may_stand_in_a_manifest() -> None:
    schema = (CHECKOUT / "daemon" / "ds_flow" / "core" / "manifest.schema.json").read_text()
    told = re.search(r'"backend": \{\s*"enum": (\[[^]]*\])', schema)

    assert told
    assert json.loads(told[1]) == list(get_args(Executor))


def test_on_slurm_a_stage_s_queue_is_its_partition(project: Load, tmp_path: Path) -> None:
    (tmp_path / "sbatch").touch(0o755)
    environ = {"PATH": str(tmp_path), "DS_FLOW_PATHS__LEDGER": "ledger/ledger.db"}
    stages = "stages: {combine: {executor: slurm}, analyze: {executor: slurm, queue: long}}"
    keys = f"slurm: {{partition: grades, account: ann}}, {stages}"
    made = project(f"{FIVE}compute: {{{keys}}}\n", **environ)

    queues = {name: stage.queue for name, stage in made.stages.items()}

    assert queues == {"process": "short", "combine": "grades", "analyze": "long"}
    assert made.site.slurm.account == "ann"


PATHS = {"input_pattern": "data/student_*.csv", "output_dir": "out", "log_dir": "log"}

PATH_FAULTS = {
    "no file named": ({"input_pattern": "data/"}, "input_pattern", "names no file"),
    "only folders": ({"input_pattern": "data/**"}, "input_pattern", "names no file"),
    "hidden": ({"input_pattern": "data/.x*"}, "input_pattern", "never match"),
    "hidden folder": ({"input_pattern": "*/.x/*.csv"}, "input_pattern", "never match"),
    "temporary": ({"input_pattern": "data/*.tmp"}, "input_pattern", "never match"),
    "NUL": ({"log_dir": "l\0g"}, "log_dir", "control character"),
    "half a character": ({"log_dir": "\ud800"}, "log_dir", "unicode"),
    "empty": ({"output_dir": ""}, "output_dir", "at least 1 character"),
    "home": ({"output_dir": "~/out"}, "output_dir", "not expanded"),
    "outputs are inputs": ({"input_pattern": "out/*.csv"}, "output_dir", "would match"),
    "outputs below": ({"input_pattern": "**/*.csv"}, "output_dir", "would match"),
    "outputs by a detour": ({"input_pattern": "data/../out/*"}, "output_dir", "would match"),
    "outputs of inputs only": (
        {"input_pattern": "out/*_student_*.csv"},
        "output_dir",
        "would match",
    ),
    "manifests": ({"input_pattern": "out/*.json"}, "output_dir", "would match"),
    "combined files": ({"input_pattern": "out/final*"}, "output_dir", "final_combined_"),
    "work directory": ({"input_pattern": "out/.work/x.csv"}, "input_pattern", "work directory"),
    "logs": ({"input_pattern": "log/*"}, "log_dir", "ds-flow.log"),
    "ledger": ({"input_pattern": "data/*", "ledger": "data/l.db"}, "ledger", "l.db"),
    "ledger's journal": ({"input_pattern": "db/*-wal", "ledger": "db/l.db"}, "ledger", "l.db-wal"),
    "ledger a folder": ({"ledger": "out"}, "ledger", "is a folder"),
    "ledger in work": ({"ledger": "out/.work/l.db"}, "ledger", "work directory"),
}


@pytest.mark.parametrize(("changed", "key", "said"), PATH_FAULTS.values(), ids=PATH_FAULTS)
def test_impossible_paths_are_told_at_the_key_to_change(
    faults: Faults, changed: Mapping[str, str], key: str, said: str
) -> None:
    paths = {**PATHS, **changed}
    lines = [f"  {name}: {json.dumps(path)}" for name, path in paths.items()]
    found = faults("\n".join(["project_name: x", "paths:", *lines]))
    start = f"{AT}:{3 + list(paths).index(key)}: paths.{key}: "
    assert any(fault.startswith(start) and said in fault for fault in found)


def test_a_link_to_the_output_folder_is_seen_through(faults: Faults, file: Path) -> None:
    (file.parent.parent / "out").mkdir()
    (file.parent.parent / "data").symlink_to("out")
    written, held = faults(FIVE.replace("student_*", "*"))
    assert "paths.output_dir: files written there" in written
    assert "could change output_dir, the ledger" in held


@pytest.mark.parametrize("pattern", ["data/*.csv", "data/**/*.csv", "in/*/student_?.csv"])
def test_an_inbox_of_its_own_is_possible_in_the_project(project: Load, pattern: str) -> None:
    project(FIVE.replace("data/student_*.csv", json.dumps(pattern)))


def test_each_missing_key_is_named(faults: Faults) -> None:
    keys = ["project_name", *(f"paths.{key}" for key in PATHS)]
    assert faults("run: {}") == [f"{AT}:1: {key}: is required" for key in keys]
    assert faults("project_name: x\npaths:\n  output_dir: o\n  log_dir: l\n") == [
        f"{AT}:2: paths.input_pattern: is required"
    ]


def test_all_faults_are_told_at_once(faults: Faults) -> None:
    found = faults(
        FIVE.replace("data/student_*", "out/*") + "run: {attempts: x, attemps: 1}\ncsv: 1\n",
        "DS_FLOW_WATCH__POLL_SECONDS=0\n",
        DS_FLOW_X="1",
    )
    assert [fault.split(": ")[1] for fault in found] == [
        "DS_FLOW_WATCH__POLL_SECONDS",
        "run.attempts",
        "run.attemps",
        "csv",
        "DS_FLOW_X",
        "paths.output_dir",
        "paths.input_pattern",
    ]


YAML_FAULTS = {
    "syntax": ("a: 1\nb: [1\nc: 2\n", 3),
    "tab": ("a:\n\tb: 1\n", 2),
    "a list": ("\n- a\n", 2),
    "text": ("hello", 1),
    "two documents": ("a: 1\n---\nb: 2\n", 2),
    "impossible number": ("a: 1\nb: !!int x\n", 2),
    "unknown tag": ("a: 1\nb: !!python/object:x {}\n", 2),
    "control character": ("a: 1\nb: \a\n", 2),
    "unhashable key": ("a: 1\n? [b]\n: 1\n", 2),
    "too deep": ("[" * 10_000, 1),
}


@pytest.mark.parametrize(("text", "line"), YAML_FAULTS.values(), ids=YAML_FAULTS)
def test_what_is_no_yaml_mapping_is_told_with_its_line(
    faults: Faults, text: str, line: int
) -> None:
    (fault,) = faults(text)
    assert fault.startswith(f"{AT}:{line}: ")


def test_a_mapping_that_holds_itself_is_a_fault(faults: Faults) -> None:
    assert f"{AT}:1: run: unknown setting" not in faults("&a {run: *a}")
    assert faults(FIVE + "x: &a [*a]\n") == [f"{AT}:6: x: unknown setting"]


def test_text_that_is_not_utf8_is_told_with_its_line(file: Path) -> None:
    file.write_bytes(b"a: 1\nb: \xff\n")
    with pytest.raises(SettingsError, match=r"settings\.yaml:2: not UTF-8"):
        load_settings(file, {})


def test_a_missing_file_is_told_with_what_to_do(file: Path) -> None:
    with pytest.raises(SettingsError, match=r"settings\.yaml: no such .* --config"):
        load_settings(file, {})


def test_a_folder_in_place_of_the_file_is_told(file: Path) -> None:
    with pytest.raises(SettingsError, match="Is a directory"):
        load_settings(file.parent, {})


def test_a_fault_of_the_environment_names_its_variable(faults: Faults) -> None:
    (fault,) = faults(DS_FLOW_RUN__ATTEMPTS="many")
    assert fault.startswith("environment: DS_FLOW_RUN__ATTEMPTS: ")
    assert "many" in fault


def test_a_fault_within_a_list_names_the_variable_that_replaced_the_files(faults: Faults) -> None:
    variable = "DS_FLOW_COMPUTE__STAGES__ANALYZE__COMMAND"
    text = "compute: {stages: {analyze: {command: [wc, -l]}}}"
    (fault,) = faults(FIVE + text, **{variable: "[wc, [1]]"})
    assert fault.startswith(f"environment: {variable}: ")


def test_a_fault_of_dotenv_names_its_variable(faults: Faults) -> None:
    (fault,) = faults(FIVE, "DS_FLOW_RUN__ATTEMPTS=0")
    assert fault.startswith(".env: DS_FLOW_RUN__ATTEMPTS: ")


def test_a_key_of_an_earlier_version_is_a_fault_that_gives_its_new_name(
    faults: Faults, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(RENAMED, "watch.settle_seconds", "watch.quiet_seconds")
    (fault,) = faults(FIVE + "watch: {settle_seconds: 1}\n")
    assert fault.endswith("watch.settle_seconds: unknown setting; it is now watch.quiet_seconds")

    (fault,) = faults(DS_FLOW_WATCH__SETTLE_SECONDS="1")
    assert fault.endswith("unknown setting; it is now DS_FLOW_WATCH__QUIET_SECONDS")


def test_an_unknown_variable_is_a_fault_with_the_nearest_known_one(faults: Faults) -> None:
    (fault,) = faults(DS_FLOW_RUN_ATTEMPTS="3")
    assert fault == (
        "environment: DS_FLOW_RUN_ATTEMPTS: unknown setting; did you mean DS_FLOW_RUN__ATTEMPTS?"
    )


def test_a_section_set_to_a_scalar_is_a_fault_whatever_is_set_within_it(faults: Faults) -> None:
    (fault,) = faults(DS_FLOW_RUN="5", DS_FLOW_RUN__ATTEMPTS="3")
    assert fault == "environment: DS_FLOW_RUN: should be a mapping of settings (it is '5')"


def test_a_line_of_dotenv_that_sets_nothing_is_a_fault(faults: Faults) -> None:
    assert faults(FIVE, "A=1\nnot a variable\n") == [".env:2: not NAME=value"]


def test_a_tag_that_cannot_be_written_is_a_fault(faults: Faults) -> None:
    assert faults(PROCESS_TAG="\udcff") == ["environment: PROCESS_TAG: not UTF-8 text"]


# --------------------------------------------------------------------------- laws


scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=12),
    st.dates(),
    st.binary(max_size=4),
)
names = st.one_of(
    st.sampled_from([*Keys.model_fields, *Compute.model_fields, *Stage.model_fields, *PATHS]),
    st.text(string.ascii_lowercase, max_size=4),
    st.integers(),
)
trees = st.dictionaries(
    names,
    st.recursive(
        scalars,
        lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(names, inner)),
        max_leaves=12,
    ),
    max_size=6,
)


def told(project: Load, text: str, **environ: str) -> None:
    with suppress(SettingsError):
        project(text, **environ)


@same_folder
@given(trees)
def test_any_mapping_gives_settings_or_faults(project: Load, tree: dict[Any, Any]) -> None:
    told(project, yaml.safe_dump(tree))
    told(project, FIVE + yaml.safe_dump(tree).removeprefix("{}"))


def test_a_number_without_end_is_a_fault(project: Load) -> None:
    with pytest.raises(SettingsError, match=r"run\.attempts"):
        project(f"{FIVE}run: {{attempts: 0x{'f' * 5000}}}\n")


@same_folder
@given(st.text(max_size=60))
def test_any_text_gives_settings_or_faults(project: Load, text: str) -> None:
    told(project, text)
    told(project, FIVE + text)


@same_folder
@given(st.text("aZ_[{]}:,*&\udcff", max_size=12), st.text("RUN_ATEMPS", max_size=14))
def test_any_variable_gives_settings_or_faults(project: Load, value: str, name: str) -> None:
    told(project, FIVE, **{f"DS_FLOW_{name}": value, "DS_FLOW_RUN__ATTEMPTS": value})


@same_folder
@given(st.text("ab/*?[]!.-~", min_size=1, max_size=14))
def test_any_input_pattern_gives_settings_or_faults(project: Load, pattern: str) -> None:
    told(project, FIVE.replace("data/student_*.csv", json.dumps(pattern)))


# --------------------------------------------------------------------------- patterns


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("/in/*.csv", "/in/a.csv"),
        ("/in/*.csv", "/in/a\n.csv"),
        ("/in/**/*.csv", "/in/a.csv"),
        ("/in/**/*.csv", "/in/x/y/a.csv"),
        ("/*/a?.csv", "/in/ab.csv"),
        ("/.in/*", "/.in/a"),
    ],
)
def test_a_path_matches(pattern: str, path: str) -> None:
    assert matches(pattern, path)


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("/in/*.csv", "/in/x/a.csv"),
        ("/in/*.csv", "/inn/a.csv"),
        ("/in/*.csv", "/in/.a.csv"),
        ("/in/*", "/in/a.tmp"),
        ("/in/**/*.csv", "/in/.x/a.csv"),
        ("/in/*.csv", "/in/a.CSV"),
        ("/*/a.csv", "/a.csv"),
    ],
)
def test_a_path_does_not_match(pattern: str, path: str) -> None:
    assert not matches(pattern, path)


def test_many_double_stars_cost_no_more_than_one() -> None:
    assert not matches("/" + "**/" * 200 + "b", "/" + "a/" * 40 + "a")


@given(st.text("ab*?", min_size=1, max_size=8).filter(lambda glob: glob != "**"))
def test_an_example_matches_its_glob(glob: str) -> None:
    assert matches(f"/{glob}", f"/{example(glob)}")


@pytest.mark.parametrize("glob", ["[a-f]?.csv", "[!0-9]*", "x[]]", "x[!]]y", "[", "a]b"])
def test_an_example_fits_classes_and_odd_brackets(glob: str) -> None:
    assert matches(f"/{glob}", f"/{example(glob)}") is (glob != "x[]]")


# --------------------------------------------------------------------------- the reference


def sections(section: type[BaseModel], before: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    """Every leaf key of the settings with its default."""
    leaves: dict[tuple[str, ...], Any] = {}
    for name, key in section.model_fields.items():
        if isinstance(key.annotation, type) and issubclass(key.annotation, BaseModel):
            leaves |= sections(key.annotation, (*before, name))
        else:
            leaves[*before, key.alias or name] = key.get_default()
    return leaves


def test_the_json_schema_takes_the_reference() -> None:
    Draft202012Validator.check_schema(settings_schema())
    Draft202012Validator(settings_schema()).validate(yaml.safe_load(REFERENCE.read_text()))


def test_the_json_schema_refuses_what_the_settings_refuse() -> None:
    validator = Draft202012Validator(settings_schema())
    assert not validator.is_valid({**yaml.safe_load(FIVE), "runs": {}})
    assert not validator.is_valid({**yaml.safe_load(FIVE), "run": {"attempts": 0}})


def test_every_key_is_described() -> None:
    described = settings_schema()
    models = [described, *described["$defs"].values()]
    keys = [(name, key) for model in models for name, key in model.get("properties", {}).items()]
    assert len(keys) > 40
    for name, key in keys:
        section = key.get("$ref", "").rpartition("/")[2]
        assert key.get("description") or described["$defs"][section]["description"], name


def test_the_reference_holds_the_defaults_and_says_them() -> None:
    text = REFERENCE.read_text()
    given = yaml.safe_load(text)
    assert given["compute"].pop("stages") == {
        "process": {},
        "combine": {},
        "analyze": {"command": ["wc", "-l"]},
    }
    assert given["schedule"] == [one.model_dump() for one in Keys.model_fields["schedule"].default]
    for loc, default in sections(Keys).items():
        if loc[:2] == ("compute", "stages") or loc[0] in {"project_name", "schedule", "expect"}:
            continue
        *around, key = loc
        below, at = text, given
        for depth, section in enumerate(around):
            below = below.partition(f"\n{'  ' * depth}{section}:")[2]
            at = at[section]
        start = f"{'  ' * len(around)}{key}:"
        line = next(line for line in below.split("\n")[1:] if line.startswith(start))
        if loc in {("paths", "input_pattern"), ("paths", "output_dir"), ("paths", "log_dir")}:
            assert "default:" not in line
        elif loc == ("paths", "ledger"):
            assert line.endswith("default: ledger.db in output_dir")
        else:
            plain = [*default] if isinstance(default, tuple) else default
            assert at[key] == plain
            said = line.partition("default: ")[2].partition("   ")[0]
            assert yaml.safe_load(said) == plain, line


def test_the_reference_names_the_keys_that_are_required() -> None:
    schema = settings_schema()
    required = {"project_name", *schema["$defs"]["Paths"]["required"]}
    (line,) = (one for one in REFERENCE.read_text().split("\n") if " are required" in one)
    assert set(re.findall(r"\w+_\w+", line)) == required


def test_the_reference_says_the_defaults_of_an_expectation() -> None:
    text = REFERENCE.read_text().partition("\nexpect: []")[2]
    assert yaml.safe_load(REFERENCE.read_text())["expect"] == []
    example = yaml.safe_load(text.partition("\n")[2].replace("#  ", ""))
    assert Keys.model_validate({**yaml.safe_load(FIVE), "expect": example}).expect
    assert set(example[0]) == set(Expected.model_fields)


def test_a_webhook_is_a_secret_that_nothing_shows(
    project: Load, faults: Callable[..., list[str]]
) -> None:
    made = project(FIVE, "DS_FLOW_ALERTS__WEBHOOK=https://host/hidden\n")
    assert made.alerts.webhook in made.secrets
    assert "hidden" not in effective(made)
    (fault,) = faults(FIVE, "DS_FLOW_ALERTS__WEBHOOK=ftp://host/hidden\n")
    assert "DS_FLOW_ALERTS__WEBHOOK: should be an address" in fault
    assert "hidden" not in fault


def test_the_token_of_the_page_is_a_secret_that_nothing_shows(
    project: Load, faults: Callable[..., list[str]]
) -> None:
    made = project(FIVE, "DS_FLOW_WEB__TOKEN=a-hidden-word-of-a-team\n")
    assert made.web.token in made.secrets
    assert "hidden" not in effective(made)
    (fault,) = faults(FIVE, "DS_FLOW_WEB__TOKEN=hidden\n")
    assert "DS_FLOW_WEB__TOKEN: String should have at least 16 characters" in fault
    assert "hidden" not in fault


@pytest.mark.parametrize("place", ["127.0.0.1:8321", "[::1]:80", "/run/ds-flow/web.socket"])
def test_a_page_listens_at_an_address_or_at_a_socket(project: Load, place: str) -> None:
    assert project(f"{FIVE}\nweb: {{listen: '{place}'}}\n").web.listen == place


@pytest.mark.parametrize("place", ["8321", "127.0.0.1", "here:0", "here:65536", "web.socket", ":1"])
def test_a_page_listens_nowhere_else(faults: Callable[..., list[str]], place: str) -> None:
    (fault,) = faults(f"{FIVE}\nweb: {{listen: '{place}'}}\n")
    assert "web.listen: should be HOST:PORT" in fault


def test_an_address_for_lineage_is_a_secret_that_nothing_shows(
    project: Load, faults: Callable[..., list[str]]
) -> None:
    made = project(
        FIVE + "lineage: {file: log/lineage.jsonl}", "DS_FLOW_LINEAGE__URL=https://h/to\n"
    )
    assert made.lineage.url in made.secrets
    assert "https://h/to" not in effective(made)
    token = project(FIVE, "DS_FLOW_LINEAGE__TOKEN=a-secret-token\n")
    assert "a-secret-token" in token.secrets
    assert "a-secret-token" not in effective(token)
    assert made.lineage_file == made.root / "log" / "lineage.jsonl"
    (fault,) = faults(FIVE, "DS_FLOW_LINEAGE__URL=ftp://host/token\n")
    assert "should be an address" in fault
    assert "token" not in fault


def test_a_metaflow_service_needs_an_address_which_nothing_shows(
    project: Load, faults: Callable[..., list[str]]
) -> None:
    assert project(FIVE).metaflow.metadata == "local"
    secrets = "DS_FLOW_METAFLOW__URL=https://h/to\nDS_FLOW_METAFLOW__AUTH_KEY=a-secret-key\n"
    made = project(FIVE + "metaflow: {metadata: service}", secrets)
    assert {"https://h/to", "a-secret-key"} <= made.secrets
    assert not [word for word in ("https://h/to", "a-secret-key") if word in effective(made)]
    (fault,) = faults(FIVE + "metaflow: {metadata: service}\n")
    assert "metaflow: metadata: service needs a url, too" in fault
    (fault,) = faults(FIVE + "metaflow: {metadata: remote}\n")
    assert "metaflow.metadata" in fault


def test_the_reference_says_the_defaults_of_a_stage() -> None:
    text = REFERENCE.read_text()
    inherited = {
        "executor": "compute.executor",
        "limit_minutes": "run.limit_minutes",
        "queue": "compute.lsf_queue",
        "image": "compute.docker_image",
    }
    for name, key in Stage.model_fields.items():
        (line,) = [line for line in text.split("\n") if line.startswith(f"  #   {name}:")]
        default = list(key.default) if isinstance(key.default, tuple) else key.default
        assert line.partition("default: ")[2].split()[0] == str(inherited.get(name, default))


def test_the_reference_says_the_defaults_of_a_schedule() -> None:
    text = REFERENCE.read_text()
    for name, key in Schedule.model_fields.items():
        (line,) = [line for line in text.split("\n") if line.startswith(f"#   {name}:")]
        if not key.is_required():
            said = yaml.safe_load(line.partition("default: ")[2].split()[0])
            assert said == key.default


def test_the_effective_settings_are_a_settings_file_that_means_the_same(
    project: Load, file: Path
) -> None:
    text = FIVE + "csv: {delimiter: tab}\ncompute: {stages: {analyze: {command: []}}}\n"
    first = project(text, DS_FLOW_RUN__ATTEMPTS="9")
    shown = effective(first)
    again = project(shown)
    assert again.options() == first.options()
    assert again.run == first.run
    assert again.schedule == first.schedule
    assert "attempts: 9  # environment DS_FLOW_RUN__ATTEMPTS" in shown
    assert f'output_dir: "out"  # {file}:4' in shown
    assert "max_parallel: 1  # default" in shown


def test_the_env_example_sets_nothing_and_names_only_settings(project: Load) -> None:
    text = (CHECKOUT / ".env.example").read_text()
    assert project(FIVE, text).dotenv == {}
    made = project(FIVE, text.replace("# PROCESS", "PROCESS").replace("# DS_FLOW_", "DS_FLOW_"))
    assert made.tag
    assert made.run.attempts == 5


# --------------------------------------------------------------------------- schedules


def test_without_a_word_on_schedules_everything_is_rerun_at_night(project: Load) -> None:
    (nightly,) = project(FIVE).schedule
    assert (nightly.name, nightly.cron, nightly.select) == ("nightly", "0 2 * * *", "all")
    assert (nightly.catch_up, nightly.skip_unchanged) == (True, True)
    assert project(FIVE + "schedule: []\n").schedule == ()


def test_a_schedule_is_taken_as_it_stands(project: Load) -> None:
    text = (
        "schedule:\n- {name: a, cron: '*/5 * * * *', timezone: Asia/Tokyo, select: data/a*.csv}\n"
    )
    (one,) = project(FIVE + text).schedule
    assert (one.timezone, one.select) == ("Asia/Tokyo", "data/a*.csv")
    assert (one.catch_up, one.skip_unchanged) == (True, False)
