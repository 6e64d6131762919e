"""Access by REST: every route, for nobody and for each level and scope; a route that is not listed here fails."""

from itertools import product

import pytest
from fastapi.routing import APIRoute

from fleet.api import access, app
from fleet.bearer import Scope
from fleet.security.identity import Level
from tests.services.rest import Answer, Rest, serve_rest

pytestmark = pytest.mark.xdist_group("rest")

_RUN = "h1:0198c0de-0000-7000-8000-000000000000"
_PUSH = {"agent_id": "h1", "task": "fleet.host.ping", "arguments": {}}
#: Every route: what it needs, and a request that is well formed. Where it names something, that is not there, so that
#: nothing is changed by whoever gets in.
ROUTES: dict[tuple[str, str], tuple[Scope | None, str, object]] = {
    ("GET", "/health"): (None, "/health", None),
    ("GET", "/health/live"): (None, "/health/live", None),
    ("GET", "/health/ready"): (None, "/health/ready", None),
    ("GET", "/api/me"): (Scope.USE, "/api/me", None),
    ("GET", "/api/hosts"): (Scope.USE, "/api/hosts", None),
    ("GET", "/api/hosts/{host}"): (Scope.USE, "/api/hosts/h1", None),
    ("GET", "/api/containers"): (Scope.USE, "/api/containers", None),
    ("GET", "/api/tasks"): (Scope.USE, "/api/tasks", None),
    ("POST", "/api/admin/push-task"): (Scope.USE, "/api/admin/push-task", _PUSH),
    ("POST", "/api/pushes"): (Scope.USE, "/api/pushes", {"hosts": ["h1"], "task": "fleet.host.ping"}),
    ("GET", "/api/runs"): (Scope.USE, "/api/runs", None),
    ("GET", "/api/runs/{run}"): (Scope.USE, f"/api/runs/{_RUN}", None),
    ("GET", "/api/runs/{run}/events"): (Scope.USE, f"/api/runs/{_RUN}/events", None),
    ("POST", "/api/runs/{run}/cancel"): (Scope.USE, f"/api/runs/{_RUN}/cancel", {}),
    ("POST", "/api/runs/{run}/retry"): (Scope.USE, f"/api/runs/{_RUN}/retry", None),
    ("GET", "/api/approvals"): (Scope.USE, "/api/approvals", None),
    ("GET", "/api/approvals/{run}"): (Scope.USE, f"/api/approvals/{_RUN}", None),
    ("POST", "/api/approvals/{run}/approve"): (Scope.USE, f"/api/approvals/{_RUN}/approve", {}),
    ("POST", "/api/approvals/{run}/deny"): (Scope.USE, f"/api/approvals/{_RUN}/deny", {}),
    ("POST", "/api/shell/execute"): (Scope.USE, "/api/shell/execute", {"agent_id": "nobody", "argv": ["x"]}),
    ("GET", "/api/shell/status/{run}"): (Scope.USE, f"/api/shell/status/{_RUN}", None),
    ("POST", "/api/shell/approve/{run}"): (Scope.USE, f"/api/shell/approve/{_RUN}", {}),
    ("GET", "/api/audit"): (Scope.AUDIT, "/api/audit", None),
    ("GET", "/api/audit/sessions"): (Scope.AUDIT, "/api/audit/sessions", None),
    ("POST", "/api/hosts/{host}/pause"): (Scope.ADMIN, "/api/hosts/nobody/pause", None),
    ("POST", "/api/hosts/{host}/resume"): (Scope.ADMIN, "/api/hosts/nobody/resume", None),
    ("POST", "/api/hosts/{host}/drain"): (Scope.ADMIN, "/api/hosts/nobody/drain", {}),
    ("POST", "/api/hosts/{host}/labels"): (Scope.ADMIN, "/api/hosts/nobody/labels", {"set": {"a": "b"}}),
    ("POST", "/api/hosts/{host}/rotate"): (Scope.ADMIN, "/api/hosts/nobody/rotate", None),
    ("DELETE", "/api/hosts/{host}"): (Scope.ADMIN, "/api/hosts/nobody", None),
    ("GET", "/api/tokens"): (Scope.ADMIN, "/api/tokens", None),
    ("POST", "/api/tokens"): (Scope.ADMIN, "/api/tokens", {}),
    ("DELETE", "/api/tokens/{token}"): (Scope.ADMIN, "/api/tokens/0123456789abcdef", None),
    ("GET", "/api/principals"): (Scope.ADMIN, "/api/principals", None),
    ("GET", "/api/principals/{principal}"): (Scope.ADMIN, "/api/principals/alice", None),
    ("POST", "/api/principals"): (Scope.ADMIN, "/api/principals", {"id": "alice", "level": "student"}),
    ("POST", "/api/principals/{principal}/level"): (Scope.ADMIN, "/api/principals/x/level", {"level": "intern"}),
    ("DELETE", "/api/principals/{principal}"): (Scope.ADMIN, "/api/principals/nobody", None),
    ("GET", "/api/principals/{principal}/tokens"): (Scope.ADMIN, "/api/principals/alice/tokens", None),
    ("DELETE", "/api/bearer-tokens/{token}"): (Scope.ADMIN, "/api/bearer-tokens/0123456789abcdef", None),
    ("GET", "/api/worker"): (Scope.ADMIN, "/api/worker?host_id=nobody", None),
    ("POST", "/api/worker/start"): (Scope.ADMIN, "/api/worker/start", {"host_id": "nobody"}),
    ("POST", "/api/worker/stop"): (Scope.ADMIN, "/api/worker/stop", {"host_id": "nobody"}),
}


def served() -> dict[tuple[str, str], APIRoute]:
    routes = (route for module in app.NOUNS for route in module.router.routes)
    return {(method, route.path): route for route in routes if isinstance(route, APIRoute) for method in route.methods}


def needed(route: APIRoute) -> list[Scope]:
    """Return what a route asks of its caller, wherever among its dependencies that is."""
    found, left = [], [route.dependant]
    while left:
        one = left.pop()
        left += one.dependencies
        if (scope := getattr(one.call, access.NEEDS, None)) is not None:
            found.append(scope)
    return found


def test_every_route_is_listed_here_and_served(rest: Rest) -> None:
    assert served().keys() == ROUTES.keys()
    described = rest.get("/openapi.json", by=None).json["paths"]
    assert {(method.upper(), path) for path, each in described.items() for method in each} == ROUTES.keys()


@pytest.mark.parametrize("route", ROUTES, ids=" ".join)
def test_every_route_says_what_it_needs(route: tuple[str, str]) -> None:
    scope = ROUTES[route][0]
    assert set(needed(served()[route])) == ({scope} if scope else set())


@pytest.mark.parametrize("route", ROUTES, ids=" ".join)
def test_without_a_token_that_counts_nobody_gets_in(rest: Rest, route: tuple[str, str]) -> None:
    scope, path, body = ROUTES[route]
    for headers in ({}, {"Authorization": "Bearer fleetapi.0123456789abcdef." + "x" * 43}):
        answer = rest.ask(route[0], path, by=None, json=body, headers={**headers, "X-Test": "a"})
        if scope is None:
            assert answer.status == 200
        else:
            assert (answer.status, answer.code) in {(401, "unauthenticated"), (429, "too_many_wrong_tokens")}
            assert answer.status == 429 or answer.headers["www-authenticate"].startswith("Bearer")


@pytest.mark.parametrize("level", Level)
def test_each_level_gets_where_its_scope_lets_it_and_nowhere_else(rest: Rest, level: Level) -> None:
    name = f"walker-{level.value}"
    rest.system.introduce(name, level)
    for (method, _), (needs, path, body) in ROUTES.items():
        answer = rest.ask(method, path, by=name, json=body)
        if needs in {None, Scope.USE}:
            assert answer.status not in {401, 403}, (method, path, answer.text)
        else:
            assert (answer.status, answer.code) == (403, "scope_too_low"), (method, path)
            assert answer.json["level"] == level.value


@pytest.mark.parametrize(("scope", "route"), list(product((Scope.AUDIT, Scope.ADMIN), ROUTES)))
def test_a_token_of_a_higher_scope_gets_further_and_not_too_far(
    rest: Rest, scope: Scope, route: tuple[str, str]
) -> None:
    needs, path, body = ROUTES[route]
    answer = rest.ask(route[0], path, scope=scope, json=body)
    if needs is Scope.ADMIN and scope is Scope.AUDIT:
        assert (answer.status, answer.code) == (403, "scope_too_low")
    else:
        assert answer.status not in {401, 403}, answer.text
        assert answer.status < 500


def test_who_is_trusted_less_than_when_its_token_was_made_is_let_in_nowhere_by_its_scope(rest: Rest) -> None:
    rest.system.introduce("fallen")
    token = rest.token("fallen", Scope.ADMIN)
    assert rest.get("/api/tokens", by="fallen", scope=Scope.ADMIN).status == 200
    said = rest.post("/api/principals/fallen/level", {"level": "supervised"}, scope=Scope.ADMIN)
    assert said.json["level"] == "supervised"
    for path in ("/api/tokens", "/api/audit"):
        answer = rest.get(path, by=None, headers={"Authorization": f"Bearer {token}"})
        assert (answer.status, answer.code, answer.json["level"]) == (403, "not_permitted", "supervised")


def test_who_is_trusted_less_sees_less_by_a_token_for_everybodys_records(rest: Rest) -> None:
    rest.system.introduce("sunken")
    run = rest.post("/api/admin/push-task", {"agent_id": "h1", "task": "fleet.host.ping"}).json["task_id"]
    assert rest.get(f"/api/runs/{run}", by="sunken", scope=Scope.AUDIT).status == 200
    assert rest.post("/api/principals/sunken/level", {"level": "student"}, scope=Scope.ADMIN).status == 200
    assert rest.get(f"/api/runs/{run}", by="sunken").status == 404
    assert rest.get(f"/api/runs/{run}", by="sunken", scope=Scope.AUDIT).status == 404
    assert rest.get("/api/runs", by="sunken", scope=Scope.AUDIT).json == []


def wrong(rest: Rest, header: str) -> Answer:
    return rest.get("/api/me", by=None, headers={"Authorization": header})


def test_who_has_a_token_that_counts_no_more_is_told_so(rest: Rest) -> None:
    rest.system.introduce("leaver")
    token = rest.token("leaver")
    assert rest.get("/api/me", by="leaver").json["id"] == "leaver"
    assert rest.delete("/api/bearer-tokens/" + token.split(".")[1], scope=Scope.ADMIN).status == 200
    assert (answer := wrong(rest, f"Bearer {token}")).code == "token_ended"
    assert (answer.status, "was revoked" in answer.json["detail"]) == (401, True)
    again = rest.token("leaver", description="another")
    assert rest.delete("/api/principals/leaver", scope=Scope.ADMIN).status == 200
    assert "is revoked or has expired" in wrong(rest, f"Bearer {again}").json["detail"]


def test_any_text_that_is_no_token_is_answered_alike_and_a_flood_of_them_is_put_off(rest: Rest) -> None:
    token = rest.token("alice")
    with serve_rest(rest.system) as fresh:
        secretless = token[:-1] + ("A" if token[-1] != "A" else "B")
        texts = (f"Bearer {secretless}", "Bearer x", "Bearer fleetapi.x.y", f"Bearer {token}.x")
        assert len({wrong(fresh, text).text for text in texts}) == 1
        assert wrong(fresh, f"Basic {token}").status == 401
        statuses = [wrong(fresh, "Bearer x").status for _ in range(40)]
        assert statuses == sorted(statuses)
        assert set(statuses) == {401, 429}
        assert wrong(fresh, f"Bearer {token}").status == 200, "who has a right one is not put off"
