"""A run as a Metaflow metadata service has it: the records of the project's store, by its API.

Runs themselves know nothing of the service. They record everything in the project's own store,
and that is sent. A service that is down, hangs or dies stops no run, and gets the run later.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from http import HTTPStatus
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError
from urllib.parse import quote
from urllib.request import Request

from ds_flow.core import Document
from ds_flow.system import FLOW_NAME, RunRecord, TaskRecord
from ds_flow.upkeep.webhook import MIME_TYPE, no_redirects

MOST_BYTES = 2**26  # of an answer
OF_RUNS = ("user_name", "tags", "system_tags")
OF_METADATA = ("field_name", "value", "type", *OF_RUNS)
OF_ARTIFACTS = (
    "name",
    "location",
    "ds_type",
    "sha",
    "type",
    "content_type",
    "attempt_id",
    *OF_RUNS,
)


def service_run_id(run_id: str) -> str:
    """The id of a run in a service, which gives out all numbers itself."""
    return f"ds-flow-{run_id}"


@dataclass(frozen=True, slots=True)
class MetaflowService:
    """A service, by its address. Every failure is an OSError; an HTTPError has its `code`."""

    url: str
    auth_key: str | None = None

    def get(self, path: str) -> Any:
        """Ask for something; None if it is not there."""
        try:
            return self._ask(path, None)
        except HTTPError as error:
            if error.code != HTTPStatus.NOT_FOUND:
                raise
        return None

    def post(self, path: str, body: object) -> None:
        """Send something, which may be there already."""
        try:
            self._ask(path, body)
        except HTTPError as error:
            if error.code != HTTPStatus.CONFLICT:
                raise

    def _ask(self, path: str, body: object) -> Any:
        asked = Request(f"{self.url.rstrip('/')}/{path}", headers={"User-Agent": "ds-flow"})  # noqa: S310 - http or https, says the setting
        if self.auth_key:
            asked.add_header("x-api-key", self.auth_key)
        if body is not None:
            asked.data = json.dumps(body).encode()
            asked.add_header("Content-Type", MIME_TYPE)
        try:
            with no_redirects().open(asked) as answer:
                return json.loads(answer.read(MOST_BYTES) or "null")
        except (HTTPException, ValueError) as error:
            raise OSError(f"no answer of a Metaflow service: {error!r}") from error


@dataclass(slots=True)
class Mirror:
    """Sends runs to a service, each part of a run once."""

    service: MetaflowService
    project: str
    _sent: set[tuple[object, ...]] = field(default_factory=set)

    def send(self, run_id: str, record: RunRecord) -> None:
        """Send what the service does not have yet of a run. It may have part of it, or all."""
        flow, run = f"flows/{FLOW_NAME}", service_run_id(run_id)
        document = _of(record.document, OF_RUNS)
        tags = [*(document.get("tags") or []), f"project:{self.project}", f"run:{run_id}"]
        self._post_once((FLOW_NAME,), flow, flow, document)
        base = f"{flow}/runs/{run}"
        self._post_once((run,), base, f"{flow}/run", {**document, "tags": tags, "run_number": run})
        for step, what in record.steps.items():
            place = f"{base}/steps/{quote(step)}"
            self._post_once((run, step), place, f"{place}/step", _of(what, OF_RUNS))
        for task in record.tasks:
            self._send_task(f"{base}/steps/{quote(task.step)}", (run, task.step, task.name), task)

    def beat(self, run_id: str) -> None:
        """Tell the service that a run lives. One that is too old for that is left alone."""
        path = f"flows/{FLOW_NAME}/runs/{service_run_id(run_id)}/heartbeat"
        try:
            self.service.post(path, {})
        except HTTPError as error:
            if error.code not in {HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED}:
                raise

    def _send_task(self, step: str, key: tuple[str, ...], task: TaskRecord) -> None:
        name = f"task-{task.name}"
        place = f"{step}/tasks/{quote(name)}"
        document = {**_of(task.document, OF_RUNS), "task_id": name}
        if self._post_once(key, place, f"{step}/task", document):  # it was there before us
            self._know(key, self.service.get(f"{place}/metadata"), _metadata_key)
            self._know(key, self.service.get(f"{place}/artifacts"), _artifact_key)
        self._post_new(key, f"{place}/metadata", task.metadata, OF_METADATA, _metadata_key)
        self._post_new(key, f"{place}/artifact", task.artifacts, OF_ARTIFACTS, _artifact_key)

    def _post_once(self, key: tuple[object, ...], place: str, path: str, body: Document) -> bool:
        """Make something at the service. Returns whether it found it there for the first time."""
        if key in self._sent:
            return False
        was_there = self.service.get(place) is not None
        if not was_there:
            self.service.post(path, body)
        self._sent.add(key)
        return was_there

    def _know(self, key: tuple[str, ...], found: object, key_of: Any) -> None:
        documents = found if isinstance(found, list) else []
        self._sent.update((*key, *key_of(one)) for one in documents if isinstance(one, dict))

    def _post_new(
        self,
        key: tuple[str, ...],
        path: str,
        documents: Iterable[Document],
        names: Iterable[str],
        key_of: Any,
    ) -> None:
        new = {(*key, *key_of(one)): _of(one, names) for one in documents}
        for known in self._sent & new.keys():
            del new[known]
        if new:
            self.service.post(path, list(new.values()))
            self._sent.update(new)


def _of(document: Document, names: Iterable[str]) -> Document:
    return {name: document[name] for name in names if name in document}


def _metadata_key(one: Document) -> tuple[object, ...]:
    tags = one.get("tags")
    marks = sorted(map(str, tags)) if isinstance(tags, list) else []
    return ("metadata", str(one.get("field_name")), str(one.get("value")), *marks)


def _artifact_key(one: Document) -> tuple[object, ...]:
    return ("artifact", str(one.get("name")), one.get("attempt_id"))
