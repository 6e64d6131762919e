"""The REST API of a fleet of tests, and its callers: real HTTP against a real `fleet api`."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest
import requests

from fleet import bearer, credentials, db
from fleet.bearer import Scope
from tests.services.system import STARTED_WITHIN, Part, System
from tests.services.waiting import until

__all__ = ["Answer", "Rest", "parsed", "rest", "serve_rest"]


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    text: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)

    @property
    def code(self) -> str:
        """The code of a problem; fails for what is none."""
        assert self.headers["content-type"] == "application/problem+json", self.text
        assert self.json["status"] == self.status
        return str(self.json["code"])


@dataclass
class Rest:
    """The door to one API."""

    system: System
    url: str
    part: Part
    tokens: dict[tuple[str, Scope], str] = field(default_factory=dict)

    def token(self, principal: str = "alice", scope: Scope = Scope.USE, **wishes: Any) -> str:
        """Return a bearer token of that principal's, made anew where something is wished of it."""
        known = self.tokens.get((principal, scope))
        if known and not wishes:
            return known
        held = credentials.load_principal(self.system.settings.principal_path(principal), name=principal)
        with db.session(self.system.engine) as session:
            made = bearer.create(session, held=held, by="alice", scope=scope, **{"ttl": timedelta(days=1), **wishes})
        if not wishes:
            self.tokens[principal, scope] = made
        return made

    def ask(
        self,
        method: str,
        path: str,
        *,
        by: str | None = "alice",
        scope: Scope = Scope.USE,
        headers: Mapping[str, str] | None = None,
        **more: Any,
    ) -> Answer:
        """Send a request as that principal, or as nobody."""
        said = dict(headers or {})
        if by is not None:
            said["Authorization"] = f"Bearer {self.token(by, scope)}"
        found = requests.request(method, f"{self.url}{path}", headers=said, timeout=90, **more)
        answer = Answer(found.status_code, found.headers, found.text)
        if answer.status == 200 and '"recorded":false' in answer.text.replace(" ", ""):
            self._await_record(answer.json)
        return answer

    def _await_record(self, pushed: Any) -> None:
        """Wait until what was pushed is on record, as most often at once: tests look at it next."""
        runs = pushed.get("runs") or [pushed]
        for run in runs:
            until(lambda run=run: self.ask("GET", f"/api/runs/{run['task_id']}").status == 200, "it is on record")  # type: ignore[misc]

    def get(self, path: str, **more: Any) -> Answer:
        return self.ask("GET", path, **more)

    def post(self, path: str, body: Any = None, **more: Any) -> Answer:
        return self.ask("POST", path, json=body, **more)

    def delete(self, path: str, **more: Any) -> Answer:
        return self.ask("DELETE", path, **more)

    def events(self, path: str, *, by: str = "alice", headers: Mapping[str, str] | None = None) -> list[dict[str, Any]]:
        """Follow a stream to its end; return its events."""
        said = {"Authorization": f"Bearer {self.token(by)}", **(headers or {})}
        with requests.get(f"{self.url}{path}", headers=said, stream=True, timeout=60) as found:
            assert found.status_code == 200, found.text
            assert found.headers["content-type"].startswith("text/event-stream")
            return list(parsed(found.iter_lines(decode_unicode=True)))


def parsed(lines: Iterator[str]) -> Iterator[dict[str, Any]]:
    """Read events as the HTML standard says, those that these streams have."""
    event: dict[str, Any] = {}
    for line in lines:
        name, _, value = line.partition(": ")
        if not line and event:
            yield event
            event = {}
        elif name == "data":
            event["data"] = json.loads(value)
        elif name in {"event", "id"}:
            event[name] = value


@contextmanager
def serve_rest(system: System, *options: str, **environment: str) -> Iterator[Rest]:
    """Run `fleet api` beside a fleet."""
    part = system.run("api", "--port", "0", "--log-format", "json", *options, **environment)

    def address() -> str | None:
        assert part.process.poll() is None, part.log.read_text()
        for line in part.log.read_text().splitlines(keepends=True):
            if '"api.started"' in line and line.endswith("\n"):  # it may still be writing
                return str(json.loads(line)["address"])
        return None

    yield Rest(system, f"http://{until(address, 'the API listens', timeout=STARTED_WITHIN)}", part)
    assert part.stop() == 0


@pytest.fixture(scope="module")
def rest(standing: System) -> Iterator[Rest]:
    """The API of the standing fleet."""
    with serve_rest(standing) as served:
        yield served
