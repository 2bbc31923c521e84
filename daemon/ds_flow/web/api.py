"""The documents as JSON: what the commands print with `--json`."""

import json
from importlib.resources import files
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from ds_flow.views import CONTENT_TYPE
from ds_flow.web.answers import Answers

OPENAPI = files("ds_flow.web").joinpath("openapi.json").read_bytes()


class Document(Response):
    """One JSON document, in ASCII, as the commands write it."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return content if isinstance(content, bytes) else json.dumps(content).encode()


def _answers(request: Request) -> Answers:
    found: Answers = request.app.state.answers
    return found


def status(request: Request) -> Response:
    return Document(_answers(request).status())


def runs(request: Request) -> Response:
    return Document(_answers(request).runs(request.query_params))


def run(request: Request) -> Response:
    return Document(_answers(request).run(request.path_params["name"]))


def file_versions(request: Request) -> Response:
    return Document(_answers(request).files(request.query_params))


def file(request: Request) -> Response:
    return Document(_answers(request).file(request.path_params["path"]))


def schedules(request: Request) -> Response:
    return Document(_answers(request).schedules())


def metrics(request: Request) -> Response:
    return Response(_answers(request).metrics(), headers={"Content-Type": CONTENT_TYPE})


def openapi(_: Request) -> Response:
    return Document(OPENAPI)
