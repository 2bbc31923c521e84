"""A live update: one number for all who look, which changes when there is news."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from ds_flow.core import DsFlowError
from ds_flow.web.answers import Answers

LOOK_SECONDS = 1.0
LIVE_SECONDS = 5.0  # while runs are live, whose jobs the ledger does not know
QUIET_LOOKS = 15  # after so many, a comment shows whether somebody is still there
MOST_LISTENERS = 32


@dataclass(slots=True)
class Events:
    """One watcher looks at the ledger, as long as there are listeners."""

    answers: Answers
    number: int = 0
    listeners: int = 0
    is_closed: bool = False
    _mark: str = ""
    _watcher: "asyncio.Task[None] | None" = None
    _moved: asyncio.Event = field(default_factory=asyncio.Event)

    def close(self) -> None:
        """Let every listener go; safe in a signal handler."""
        self.is_closed = True

    async def stream(self, _: Request) -> Response:
        """Answer one listener. One too many is told to come no more: 204 says so."""
        if self.listeners >= MOST_LISTENERS or self.is_closed:
            return Response(status_code=204)
        return StreamingResponse(self._said(), media_type="text/event-stream")

    async def _said(self) -> AsyncIterator[str]:
        self.listeners += 1
        if self._watcher is None or self._watcher.done():
            self._watcher = asyncio.create_task(self._watch())
        try:
            told, quiet = -1, 0
            while not self.is_closed:
                if told != self.number:
                    told, quiet = self.number, 0
                    yield f"retry: 5000\ndata: {told}\n\n"
                elif quiet == QUIET_LOOKS:
                    quiet = 0
                    yield ":\n\n"
                quiet += 1
                await self._wait()
        finally:
            self.listeners -= 1

    async def _wait(self) -> None:
        try:
            async with asyncio.timeout(LOOK_SECONDS):
                await self._moved.wait()
        except TimeoutError:
            return

    async def _watch(self) -> None:
        """Look, make the new status, and only then say that there is one.

        The first look is news, too: whoever listens may have read what was true before it.
        """
        loop = asyncio.get_running_loop()
        live_s = loop.time()
        while self.listeners and not self.is_closed:
            mark = await run_in_threadpool(self.answers.mark)
            if mark != self._mark or loop.time() - live_s >= LIVE_SECONDS:
                is_news = await run_in_threadpool(self._renew)
                live_s = loop.time()
                if mark != self._mark or is_news:
                    self._say()
                self._mark = mark
            await asyncio.sleep(LOOK_SECONDS)

    def _renew(self) -> bool:
        """Make the status anew; whether runs are live."""
        try:
            status = self.answers.kept_status.renew()
        except (DsFlowError, OSError):  # whoever asks is told
            return False
        return bool(status["batches"].get("running") or status["arriving"])

    def _say(self) -> None:
        self.number += 1
        moved, self._moved = self._moved, asyncio.Event()
        moved.set()
