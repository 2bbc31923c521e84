"""Every address of the page, and who answers it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from anyio.to_thread import current_default_thread_limiter
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from ds_flow.core import DsFlowError, RequestError
from ds_flow.settings import Settings
from ds_flow.web import api, downloads, pages
from ds_flow.web.actions import RefusedError, act
from ds_flow.web.answers import Answers, WrongQuestionError
from ds_flow.web.events import Events
from ds_flow.web.guard import HEADERS, Guard

THREADS = 4  # questions at the same time


def make_app(settings: Settings) -> Starlette:
    """The page of one project."""
    answers = Answers(settings)
    events = Events(answers)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        current_default_thread_limiter().total_tokens = THREADS
        answers.prepare()
        yield
        events.close()
        await run_in_threadpool(answers.close)

    app = Starlette(
        routes=_routes(events),
        middleware=[Middleware(Guard, hosts=_hosts(settings))],
        exception_handlers={
            DsFlowError: _explained,
            OSError: _explained,
            HTTPException: _explained,
            Exception: _fault,
        },
        lifespan=lifespan,
    )
    app.state.answers, app.state.events = answers, events
    return app


def _hosts(settings: Settings) -> list[str]:
    listen = settings.web.listen
    own = [] if listen.startswith("/") else [listen.rpartition(":")[0].strip("[]")]
    return [*own, *settings.web.hosts]


def _routes(events: Events) -> list[BaseRoute]:
    return [
        Route("/", pages.overview),
        Route("/runs", pages.runs),
        Route("/runs/{run_id}/outputs/{name}", _download),
        Route("/runs/{name:path}", pages.run),
        Route("/files", pages.file_list),
        Route("/files/{path:path}", pages.file),
        Route("/quarantine", pages.quarantine),
        Route("/schedules", pages.schedules),
        Route("/actions/{action}", act, methods=["POST"]),
        Route("/static/{name}", pages.static_file),
        Route("/events", events.stream),
        Route("/metrics", api.metrics),
        Route("/api/status", api.status),
        Route("/api/runs", api.runs),
        Route("/api/runs/{name:path}", api.run),
        Route("/api/files", api.file_versions),
        Route("/api/files/{path:path}", api.file),
        Route("/api/schedules", api.schedules),
        Route("/api/openapi", api.openapi),
    ]


def _download(request: Request) -> Response:
    given = request.path_params
    return downloads.output(request.app.state.answers, given["run_id"], given["name"])


def _explained(request: Request, error: Exception) -> Response:
    """What went wrong, in words: a page, or a document for programs."""
    code, why = _code(error), str(error)
    if isinstance(error, HTTPException):
        why = "this page does not exist" if code == 404 else error.detail  # noqa: PLR2004 - HTTP's
    if request.url.path.startswith("/api/"):
        return api.Document({"error": why}, code)
    return pages.page(request, "error.html", code, why=why, code=code)


def _fault(request: Request, _: Exception) -> Response:
    """A fault of the page. Nothing else adds the headers here, and what it was goes to the log."""
    answer = _explained(request, DsFlowError("The page has met a fault of its own; see its log."))
    answer.headers.update(HEADERS)
    return answer


def _code(error: Exception) -> int:
    match error:
        case HTTPException():
            return error.status_code
        case WrongQuestionError():
            return 400
        case RefusedError():
            return 403
        case RequestError():
            return 404
        case _:
            return 503
