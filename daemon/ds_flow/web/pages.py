"""The documents as HTML."""

import hashlib
from collections.abc import Mapping
from importlib.resources import files
from typing import Any
from urllib.parse import quote, urlencode

from jinja2 import Environment
from markupsafe import Markup, escape
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from ds_flow.core import (
    LIVE_RUNS,
    Cause,
    Document,
    FileState,
    RunState,
    Trigger,
    printable,
    short_time,
)
from ds_flow.reports import templates
from ds_flow.web import charts, words
from ds_flow.web.answers import Answers, now

SHOWN = 200  # rows of each table of one run
STATIC = {
    name: files("ds_flow.web").joinpath("static", name).read_bytes()
    for name in ("style.css", "live.js", "icon.svg")
}
KINDS = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
NAV = (
    ("/", "Overview"),
    ("/runs", "Runs"),
    ("/files", "Files"),
    ("/quarantine", "Quarantine"),
    ("/schedules", "Schedules"),
)


def _code(text: str) -> Markup:
    """Write a sentence in which commands stand between backticks."""
    parts = (escape(printable(part)) for part in text.split("`"))
    texts = (Markup("<code>{}</code>").format(one) if n % 2 else one for n, one in enumerate(parts))
    return Markup("").join(texts)


def _href(*parts: str, **query: object) -> str:
    """Write an address of the page. A path stays readable."""
    given = {key: value for key, value in query.items() if value not in {None, ""}}
    path = "/".join(quote(part, safe="/:@") for part in parts)
    return f"/{path}" + (f"?{urlencode(given)}" if given else "")


def _static(name: str) -> str:
    return f"/static/{name}?v={hashlib.sha256(STATIC[name]).hexdigest()[:12]}"


def _environment() -> Environment:
    made = templates("ds_flow.web")
    made.globals |= {"href": _href, "static": _static, "nav": NAV}
    made.filters |= {
        "code": _code,
        "tone": words.tone,
        "size": words.size,
        "number": words.number,
        "span": words.span,
        "short_time": short_time,
        "label": lambda word: str(word).replace("_", " "),
    }
    made.globals |= {"between": words.between}
    return made


ENVIRONMENT = _environment()


def page(request: Request, template: str, code: int = 200, /, **values: Any) -> Response:
    """One page of HTML."""
    at = now()
    answers = _answers(request)
    common = {
        "project": answers.settings.project_name,
        "at": at.isoformat(),
        "ago": lambda moment: words.ago(moment, at),
        "path": request.url.path,
        "query": dict(request.query_params),
        "web": answers.settings.web,
        "can_follow": request.method != "POST",  # the answer to a form cannot be fetched again
    }
    text = ENVIRONMENT.get_template(template).render({**common, **values})
    return HTMLResponse(text, code)


def _answers(request: Request) -> Answers:
    found: Answers = request.app.state.answers
    return found


def overview(request: Request) -> Response:
    answers, at = _answers(request), now()
    status, done = answers.status(), answers.done.get()
    return page(
        request,
        "overview.html",
        status=status,
        todo=[one for one in status["problems"] if one["needs_person"]],
        others=[one for one in status["problems"] if not one["needs_person"]],
        disks=answers.disks(),
        throughput=charts.throughput(done, at) if done else None,
        latency=charts.latency(done, at) if done else None,
        newest=answers.listed_runs({"limit": "6"})[0],
    )


def runs(request: Request) -> Response:
    found, before = _answers(request).listed_runs(request.query_params)
    return page(
        request, "runs.html", runs=found, before=before, states=[*RunState], triggers=[*Trigger]
    )


def run(request: Request) -> Response:
    answers, name = _answers(request), request.path_params["name"]
    found = answers.run(name)
    lines, is_whole = answers.log(name)
    manifest = found["manifest"] or {}
    return page(
        request,
        "run.html",
        run=found,
        manifest=manifest,
        is_live=found["state"] in LIVE_RUNS,
        time_line=charts.time_line(found["jobs"], now()),
        changed=_changed(manifest),
        shown=SHOWN,
        log=lines,
        is_whole_log=is_whole,
    )


def _changed(manifest: Mapping[str, Any]) -> Document:
    """How many outputs are identical, new and changed, and the changed ones."""
    outputs = manifest.get("outputs", [])
    found = [one for one in outputs if one.get("compared") in {"changed", "new"}]
    same = sum(one.get("compared") == "identical" for one in outputs)
    return {"identical": same, "others": found}


def file_list(request: Request) -> Response:
    found = _answers(request).files_page(request.query_params)
    return page(request, "files.html", files=found.files, after=found.after, states=[*FileState])


def file(request: Request) -> Response:
    answers, path = _answers(request), request.path_params["path"]
    found = answers.file(path)
    return page(request, "file.html", file=found, versions=answers.versions(path))


def quarantine(request: Request) -> Response:
    rows, after = _answers(request).quarantine(request.query_params)
    status = _answers(request).status()
    count = status["files"]["quarantined"]
    return page(request, "quarantine.html", rows=rows, after=after, count=count, name=Cause.NAME)


def schedules(request: Request) -> Response:
    answers = _answers(request)
    found = answers.schedules()["schedules"]
    fires = {one["name"]: answers.fires(one["name"]) for one in found}
    return page(request, "schedules.html", schedules=found, fires=fires)


def static_file(request: Request) -> Response:
    """One of the page's own few files."""
    name = request.path_params["name"]
    if name not in STATIC:
        return Response("this file does not exist\n", 404, media_type="text/plain")
    kind = KINDS[name.rpartition(".")[2]]
    return Response(STATIC[name], media_type=kind, headers={"Cache-Control": "max-age=86400"})
