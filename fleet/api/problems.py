"""Problems: errors as answers (RFC 9457, `application/problem+json`), each with the code that programs go by.

What is the caller's to mend is said in full. Of what is wrong on this side only the kind is said, and the rest goes
into the log: addresses, paths and causes are nobody's business who asks from outside.
"""

import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Match

from fleet import errors, logs
from fleet.api.callers import Caller, TooManyWrong
from fleet.api.news import TooManyWaiting

log = logs.get(__name__)

MEDIA_TYPE = "application/problem+json"
#: The most specific class counts.
_STATUS: dict[type[errors.FleetError], int] = {
    errors.UsageError: 400,
    errors.InvalidArguments: 422,
    errors.NotFound: 404,
    errors.Refused: 409,
    errors.TaskRejected: 409,
    errors.CredentialUnusable: 403,
    errors.Unauthenticated: 401,
    TooManyWrong: 429,
    TooManyWaiting: 429,
    errors.NotPermitted: 403,
    errors.NotTrusted: 502,
    errors.Unreachable: 503,
    errors.NoHosts: 404,
    errors.HostNotConnected: 404,
    errors.HostNotAvailable: 409,
    errors.QueueFull: 429,
    errors.TaskExpired: 410,
    errors.TimedOut: 504,
    errors.TaskFailed: 409,
    errors.FleetError: 500,
    errors.SettingsInvalid: 500,
    errors.LocalFault: 500,
}
#: Statuses of what a host refuses, by its reasons; the others are conflicts.
_OF_REASON = {
    "not_in_allow_list": 400,
    "not_permitted": 403,
    "credential_revoked": 403,
    "credential_expired": 403,
    "own_request": 403,
    "denied": 403,
    "no_policy": 403,
    "switched_off": 403,
    "stale": 410,
    "late": 410,
    "invalid_arguments": 422,
    "too_many_waiting": 429,
    "not_trusted": 502,
}
#: What is said of troubles on this side.
_OURS: dict[type[errors.FleetError], str] = {
    errors.BrokerUnavailable: "the broker does not answer",
    errors.DatabaseUnavailable: "the database does not answer",
}
_REMEDIES = {408: "send it within 30 s", 413: "send less", 503: "try again in a while"}
_RETRY_AFTER_SECONDS = {429: "60", 503: "5"}
_MOST_SHOWN = 200


class Problem(BaseModel):
    """Why a request was not carried out."""

    model_config = ConfigDict(
        extra="allow",
        json_schema_extra={
            "example": {
                "type": "urn:fleet:problem:host_not_connected",
                "title": "Not Found",
                "status": 404,
                "detail": "host_not_connected: host 'edge-7' is not connected; nothing was queued",
                "code": "host_not_connected",
                "remedy": "start its worker, or queue for it",
            }
        },
    )

    type: str = Field(description="`urn:fleet:problem:` and the code")
    title: str = Field(description="the name of the HTTP status")
    status: int
    detail: str = Field(description="what is wrong, with what value")
    code: str = Field(description="the stable word for programs")
    remedy: str = Field("", description="what to do next")
    fields: dict[str, str] = Field({}, description="each wrong field, and what is wrong with it")
    level: str | None = Field(None, description="the caller's level, where it is too low")


#: For the documentation: every status that a route may answer with.
RESPONSES: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem, "description": text, "content": {MEDIA_TYPE: {}}}
    for status, text in {
        400: "a wrong or missing field (named), or `not_in_allow_list`",
        401: "no bearer token, or none that counts",
        403: "the level, the selectors or the token's scope do not allow it",
        404: "no such thing; a host that is not enrolled or not among yours, or `host_not_connected`",
        408: "the body did not come within 30 s",
        409: "it is not so that this could be done: another state, another answer",
        410: "its time is over",
        413: "more than 1 MiB",
        422: "the arguments do not fit the task (each named)",
        429: "too much at once: a full queue, too many streams, too many wrong tokens",
        502: "a signature is not whose it should be; nothing was done",
        503: "the broker or the database is away, or too much is asked at once",
        504: "the host has not answered in time; what was asked goes on",
    }.items()
}


def install(app: FastAPI) -> None:
    """Let every error of the app be answered as a problem."""
    app.add_exception_handler(errors.FleetError, _of_fleet)
    app.add_exception_handler(RequestValidationError, _of_validation)
    app.add_exception_handler(HTTPException, _of_http)
    app.add_exception_handler(Exception, _of_defect)


def answer(
    status: int,
    *,
    code: str,
    detail: str,
    remedy: str = "",
    headers: Mapping[str, str] | None = None,
    **more: Any,
) -> Response:
    """Return a problem as a response."""
    problem = Problem(
        type=f"urn:fleet:problem:{code}",
        title=HTTPStatus(status).phrase,
        status=status,
        detail=detail,
        code=code,
        remedy=remedy,
        **more,
    )
    said = {**({"Retry-After": _RETRY_AFTER_SECONDS[status]} if status in _RETRY_AFTER_SECONDS else {})}
    # as ASCII: what was wrong with a request may be that it holds no text at all
    return Response(
        json.dumps(problem.model_dump(exclude_defaults=True)),
        status_code=status,
        media_type=MEDIA_TYPE,
        headers={**said, **(headers or {})},
    )


def of(exc: errors.FleetError, *, caller: Caller | None = None) -> Response:
    """Return what is answered for one of Fleet's errors."""
    cause = exc.__cause__ if isinstance(exc, errors.PartlyPushed) else exc
    if not isinstance(cause, errors.FleetError):
        cause = exc
    status = _status(cause)
    for kind, sentence in _OURS.items():
        if isinstance(cause, kind):
            log.warning("request.unserved", error=str(exc), code=cause.code)
            return answer(status, code=kind.code, detail=sentence, remedy="try again in a while", **_pushed(exc))
    if status == 500:
        log.error("request.failed", error=str(exc), code=exc.code)
        return answer(500, code="internal", detail="something is wrong here; the log of the API says what")
    more: dict[str, Any] = {**_pushed(exc), **_fields(exc)}
    if status == 403 and caller is not None:
        more["level"] = caller.bearer.level.value
    headers = {"WWW-Authenticate": 'Bearer realm="fleet"'} if status == 401 else None
    return answer(status, code=_code(exc), detail=exc.message, remedy=exc.remedy, headers=headers, **more)


def _status(exc: errors.FleetError) -> int:
    if isinstance(exc, errors.TaskRejected):
        return _OF_REASON.get(exc.reason, _STATUS[errors.TaskRejected])
    return next(_STATUS[kind] for kind in type(exc).__mro__ if kind in _STATUS)


def _code(exc: errors.FleetError) -> str:
    if isinstance(exc, errors.HostNotEnrolled):
        return "host_not_enrolled"
    return exc.reason if isinstance(exc, errors.TaskRejected) else exc.code


def _fields(exc: errors.FleetError) -> dict[str, Any]:
    if isinstance(exc, errors.InvalidValue):
        return {"fields": {exc.field: exc.problem}}
    if isinstance(exc, errors.InvalidArguments):
        return {"fields": {f"arguments.{name}": problem for name, problem in exc.fields.items()}}
    return {"fields": {"task": "is no task"}} if isinstance(exc, errors.UnknownTask) else {}


def _pushed(exc: errors.FleetError) -> dict[str, Any]:
    """Return the runs that a push had made when it was cut short: they go on."""
    return {"runs": list(exc.run_ids)} if isinstance(exc, errors.PartlyPushed) else {}


async def _of_fleet(request: Request, exc: Exception) -> Response:
    assert isinstance(exc, errors.FleetError)
    return of(exc, caller=getattr(request.state, "caller", None))


async def _of_validation(_: Request, exc: Exception) -> Response:
    assert isinstance(exc, RequestValidationError)
    fields: dict[str, str] = {}
    for error in exc.errors():
        is_json = error["type"] != "json_invalid"
        where = (
            [str(part) for part in error["loc"] if part not in {"body", "query", "path", "header"}] if is_json else []
        )
        # what is wrong with several fields together names the one to mend
        name = ".".join(where) or error.get("ctx", {}).get("field", "body")
        fields.setdefault(name, error["msg"][:_MOST_SHOWN] if is_json else "is no JSON")
    listed = "; ".join(f"{name}: {said}" for name, said in fields.items())
    return answer(400, code="invalid_request", detail=listed, remedy="/openapi.json says what is taken", fields=fields)


def of_http(exc: HTTPException) -> Response:
    """Return what is answered where HTTP itself was used wrongly."""
    code = "too_large" if exc.status_code == 413 else HTTPStatus(exc.status_code).phrase.lower().replace(" ", "_")
    remedy = _REMEDIES.get(exc.status_code, "/openapi.json lists what there is")
    return answer(exc.status_code, code=code, detail=exc.detail, remedy=remedy, headers=exc.headers)


async def _of_http(request: Request, exc: Exception) -> Response:
    assert isinstance(exc, HTTPException)
    if exc.status_code == 405:
        exc.headers = {"Allow": ", ".join(sorted(_methods(request)))}
    return of_http(exc)


def _methods(request: Request) -> set[str]:
    """Return what may be done with a path; Starlette names the methods of the first route alone."""
    matching = (route for route in request.app.state.routes if route.matches(request.scope)[0] is not Match.NONE)
    return {method for route in matching for method in route.methods}


async def _of_defect(_: Request, __: Exception) -> Response:
    """Answer for a mistake of ours; Starlette raises it again, and `app` logs it."""
    return answer(500, code="internal", detail="something is wrong here; the log of the API says what")
