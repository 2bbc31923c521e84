"""A stand-in for Metaflow's metadata service: the same paths, answers and refusals, in memory.

Written after the published behaviour of the service, version 2.5. Both give out numbers for runs
and tasks, and take names that are no numbers. They answer a known thing with 409 and an unknown
one with 404. They keep an artifact of an attempt once, and metadata as often as it comes.
"""

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Row = dict[str, Any]
Answer = tuple[int, Any]
VERSION = "2.5.0"


@dataclass
class Tables:
    """What the service keeps in its database. A key is a tuple of names."""

    rows: dict[tuple[str, ...], Row] = field(default_factory=dict)
    metadata: list[tuple[tuple[str, ...], Row]] = field(default_factory=list)
    artifacts: dict[tuple[Any, ...], Row] = field(default_factory=dict)
    number: int = 0

    def below(self, key: tuple[str, ...]) -> list[Row]:
        return [
            row
            for one, row in self.rows.items()
            if len(one) == len(key) + 1 and one[: len(key)] == key
        ]

    def of_tasks(self, key: tuple[str, ...]) -> list[Row]:
        return [row for one, row in self.metadata if one[: len(key)] == key]

    def stored(self, key: tuple[str, ...], attempt: int | None = None) -> list[Row]:
        found = [
            (one[-1], row) for one, row in self.artifacts.items() if one[:-2][: len(key)] == key
        ]
        last = max((number for number, _ in found), default=0) if attempt is None else attempt
        return [row for number, row in found if number == last]

    def make(self, key: tuple[str, ...], row: Row) -> Answer:
        if len(key) > 1 and key[:-1] not in self.rows:
            return 404, {"err_msg": "foreign key"}
        if key in self.rows:
            return 409, {"err_msg": "duplicate key"}
        self.rows[key] = row
        return 200, row


class Service(ThreadingHTTPServer):
    """Answers like the service. `codes` are given instead of the next answers.

    After `takes` requests it still does what it is asked, and its answers are lost.
    """

    daemon_threads = True

    def __init__(self, port: int = 0, tables: Tables | None = None) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.tables = tables or Tables()
        self.lock = threading.Lock()
        self.codes: list[int] = []
        self.takes: int | None = None
        self.asked: list[str] = []
        self.keys: set[str | None] = set()
        self.hold = threading.Event()
        self.hold.set()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def runs(self) -> dict[str, Row]:
        """The runs it knows, by their ids."""
        with self.lock:
            return {key[1]: row for key, row in self.tables.rows.items() if len(key) == 2}

    def tasks(self, run: str) -> list[tuple[str, ...]]:
        """The steps of a run's tasks, and their names."""
        with self.lock:
            keys = [key for key in self.tables.rows if len(key) == 4 and key[1] == run]
            return [key[2:] for key in keys]

    def metadata(self, run: str) -> list[tuple[str, ...]]:
        """All metadata of a run: step, task, field and value."""
        with self.lock:
            return [
                (*key[2:], row["field_name"], row["value"])
                for key, row in self.tables.metadata
                if key[1] == run
            ]


@contextmanager
def served(port: int = 0, tables: Tables | None = None) -> Iterator[Service]:
    """Serve; afterwards, nobody listens there."""
    with Service(port, tables) as service:
        thread = threading.Thread(target=service.serve_forever, daemon=True)
        thread.start()
        try:
            yield service
        finally:
            service.hold.set()
            service.shutdown()


FLOW = r"/flows/(?P<flow>[^/]+)"
RUN = rf"{FLOW}/runs/(?P<run>[^/]+)"
STEP = rf"{RUN}/steps/(?P<step>[^/]+)"
TASK = rf"{STEP}/tasks/(?P<task>[^/]+)"
PARTS = ("flow", "run", "step", "task")


class _Handler(BaseHTTPRequestHandler):
    server: Service
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer(self._get)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"] or 0)) or "{}")
        self._answer(lambda path: self._post(path, body))

    def _answer(self, respond: Any) -> None:
        server, path = self.server, self.path.partition("?")[0]
        server.hold.wait()
        with server.lock:
            server.asked.append(f"{self.command} {path}")
            server.keys.add(self.headers["x-api-key"])
            code, body = (server.codes.pop(0), {}) if server.codes else respond(path)
            is_lost = server.takes is not None and len(server.asked) > server.takes
        if is_lost:
            self.close_connection = True
            return
        content = (body if isinstance(body, str) else json.dumps(body)).encode()
        self.send_response(code)
        self.send_header("METADATA_SERVICE_VERSION", VERSION)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass

    # ------------------------------------------------------------------ questions

    def _get(self, path: str) -> Answer:
        tables = self.server.tables
        if path == "/ping":
            return 200, "pong"
        for place in (FLOW, RUN, STEP, TASK):
            if found := re.fullmatch(place, path):
                row = tables.rows.get(_key(found))
                return (404, {}) if row is None else (200, row)
        for place, below in ((FLOW, "runs"), (RUN, "steps"), (STEP, "tasks")):
            if found := re.fullmatch(f"{place}/{below}", path):
                return 200, tables.below(_key(found))
        return self._get_of_tasks(path)

    def _get_of_tasks(self, path: str) -> Answer:
        tables, attempt = self.server.tables, r"(/attempt/(?P<attempt>[0-9]+))?"
        for place in (RUN, STEP, TASK):
            if found := re.fullmatch(f"{place}/metadata", path):
                return 200, tables.of_tasks(_key(found))
            if found := re.fullmatch(f"{place}{attempt}/artifacts", path):
                return 200, tables.stored(_key(found), _number(found["attempt"]))
        if found := re.fullmatch(rf"{TASK}/artifacts/(?P<name>[^/]+){attempt}", path):
            rows = tables.stored(_key(found), _number(found["attempt"]))
            return next(((200, row) for row in rows if row["name"] == found["name"]), (404, {}))
        return 404, {}

    # ------------------------------------------------------------------ news

    def _post(self, path: str, body: Any) -> Answer:
        tables = self.server.tables
        if found := re.fullmatch(FLOW, path):
            return tables.make(_key(found), {"flow_id": found["flow"], **_kept(body)})
        if found := re.fullmatch(f"{FLOW}/run", path):
            return self._make_named(_key(found), "run_number", body)
        if found := re.fullmatch(f"{STEP}/step", path):
            return tables.make(_key(found), {**_names(found), **_kept(body)})
        if found := re.fullmatch(f"{STEP}/task", path):
            return self._make_named(_key(found), "task_id", body)
        if found := re.fullmatch(f"{RUN}/heartbeat", path):
            said = json.dumps({"wait_time_in_seconds": 10})  # text of JSON, as JSON
            return (200, json.dumps(said)) if _key(found) in tables.rows else (404, {})
        return self._add(path, body)

    def _make_named(self, above: tuple[str, ...], what: str, body: Row) -> Answer:
        tables, name = self.server.tables, body.get(what)
        if name and name.isnumeric():
            said = {"message": f"provided {what} may not be a numeric"}
            return (500 if what == "run_number" else 400), said
        tables.number += 1
        key = (*above, name or str(tables.number))
        names = dict(zip(("flow_id", "run_number", "step_name", "task_id"), key, strict=False))
        return tables.make(key, {**names, **_kept(body)})

    def _add(self, path: str, body: list[Row]) -> Answer:
        tables = self.server.tables
        for what in ("metadata", "artifact"):
            found = re.fullmatch(f"{TASK}/{what}", path)
            if not found:
                continue
            key = _key(found)
            if key not in tables.rows:
                return 400, {"message": "need to register run_id and task_id first"}
            for one in body:
                row = {**_names(found), **one, "ts_epoch": 1_700_000_000_000}
                if what == "metadata":
                    tables.metadata.append((key, {"id": len(tables.metadata), **row}))
                else:
                    tables.artifacts.setdefault((*key, one["name"], one["attempt_id"]), row)
            return 200, {f"{what}s_created": len(body)}
        return 405, {}


def _key(found: re.Match[str]) -> tuple[str, ...]:
    return tuple(found[part] for part in PARTS if part in found.re.groupindex)


def _names(found: re.Match[str]) -> Row:
    names = ("flow_id", "run_number", "step_name", "task_id")
    return dict(zip(names, _key(found), strict=False))


def _kept(body: Row) -> Row:
    return {
        **{name: body.get(name) for name in ("user_name", "tags", "system_tags")},
        "ts_epoch": 1_700_000_000_000,
    }


def _number(word: str | None) -> int | None:
    return None if word is None else int(word)
