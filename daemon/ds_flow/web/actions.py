"""Retry, rerun, release, cancel: off by default, with a token, recorded with who asked.

They record a wish in the ledger, as the commands do, and wake the daemon.
"""

import asyncio
import hmac
import os
import shlex
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlsplit

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from ds_flow.core import DsFlowError, RequestError, in_backquotes
from ds_flow.ledger import Ledger
from ds_flow.service import cancel, release, rerun, retry
from ds_flow.settings import Settings
from ds_flow.system import wake_daemon
from ds_flow.views import find_batch, find_run
from ds_flow.web.answers import Answers, now
from ds_flow.web.guard import name_of
from ds_flow.web.pages import page
from ds_flow.work import require_own

FORM = "application/x-www-form-urlencoded"
MOST_BYTES = 8192  # of a form
MOST_FIELDS = 10
MOST_NAME = 100
WRONG_TOKEN_SECONDS = 1.0  # so long a wrong token waits for its answer

COMMANDS = {
    "retry": "ds-flow retry",
    "rerun": "ds-flow rerun",
    "release": "ds-flow release --",
    "cancel": "ds-flow cancel",
}


class RefusedError(DsFlowError):
    """Whoever asked may not."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What somebody asks for."""

    action: str
    target: str
    who: str  # the name that was given, and where it came from


async def act(request: Request) -> Response:
    """Answer one form. Raises RefusedError, RequestError."""
    answers: Answers = request.app.state.answers
    settings, action = answers.settings, request.path_params["action"]
    if action not in COMMANDS:
        raise RequestError(f"there is no action {action!r}")
    _require_on(settings)
    _require_same_origin(request)
    form = await _form(request)
    await _require_token(settings, form)
    wish = Wish(action, _given(form, "target"), _who(request, form))
    words = await run_in_threadpool(_carry_out, settings, wish)
    return await run_in_threadpool(page, request, "done.html", 200, words=words, wish=wish)


def _require_on(settings: Settings) -> None:
    if not settings.web.actions:
        raise RefusedError("Actions are off. web.actions in the settings turns them on.")
    if settings.web.token is None:
        raise RefusedError("There is no token. Set DS_FLOW_WEB__TOKEN in .env.")


def _require_same_origin(request: Request) -> None:
    """Raise RefusedError for a form of another page. A browser says where it comes from."""
    site = request.headers.get("sec-fetch-site", "same-origin")
    origin = urlsplit(request.headers.get("origin", "")).netloc
    is_own = name_of(origin) == name_of(request.headers.get("host", ""))
    if site != "same-origin" or not is_own:
        raise RefusedError("The form is not from this page. Open the page, and try again.")


async def _form(request: Request) -> Mapping[str, str]:
    if request.headers.get("content-type", "").partition(";")[0] != FORM:
        raise RefusedError(f"A form should be {FORM}.")
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MOST_BYTES:
            raise RefusedError("The form is too long.")
    try:
        return dict(parse_qsl(body.decode("utf-8", "replace"), max_num_fields=MOST_FIELDS))
    except ValueError as error:
        raise RefusedError("The form has too many fields.") from error


async def _require_token(settings: Settings, form: Mapping[str, str]) -> None:
    given, wanted = form.get("token", ""), settings.web.token or ""
    if not hmac.compare_digest(given.encode(), wanted.encode()):
        await asyncio.sleep(WRONG_TOKEN_SECONDS)
        raise RefusedError("The token is wrong. It is DS_FLOW_WEB__TOKEN in .env.")


def _given(form: Mapping[str, str], name: str) -> str:
    value = form.get(name, "").strip()
    if not value:
        raise RefusedError(f"The field {name!r} is empty.")
    return value


def _who(request: Request, form: Mapping[str, str]) -> str:
    name = _given(form, "name")[:MOST_NAME]
    place = request.client.host if request.client else "the socket"
    return f"{name}, from {place}"


def _carry_out(settings: Settings, wish: Wish) -> str:
    """Record the wish with who asked, and wake the daemon; what came of it."""
    _require_writable(settings, wish)
    require_own(settings.output_dir, settings.root)
    with closing(Ledger(settings.ledger)) as ledger:
        ledger.history.note("web.asked", f"{wish.action} {wish.target} by {wish.who}", now())
        words = _do(settings, ledger, wish)
    try:
        has_daemon = wake_daemon(settings)
    except (OSError, RequestError):
        return f"{words}. The daemon does it when it next wakes up"
    return words if has_daemon else f"{words}. No daemon is running; the next one does it"


def _require_writable(settings: Settings, wish: Wish) -> None:
    needed = (settings.ledger, settings.ledger.parent)
    if not all(os.access(path, os.W_OK) for path in needed):
        target = shlex.quote(in_backquotes(wish.target))
        command = f"{COMMANDS[wish.action]} {target}"
        raise RefusedError(f"This page may only read here. Type the command instead: `{command}`")


def _do(settings: Settings, ledger: Ledger, wish: Wish) -> str:
    match wish.action:
        case "retry":
            return retry(ledger, find_batch(ledger, wish.target), now())
        case "release":
            return release(ledger, wish.target, now())[1]
        case "cancel":
            return cancel(settings, ledger, find_batch(ledger, wish.target), now())[1]
        case _:
            run = find_run(ledger, wish.target)
            if run.run_id is None:
                raise RequestError(f"run {wish.target} has published nothing")
            return rerun(settings, ledger, run.run_id, run.batch, now())
