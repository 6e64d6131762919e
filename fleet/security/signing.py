"""Signing: what travels through the broker with a signature, how it is written, and how it is checked.

| what | signed by | covers | where the signature is |
|---|---|---|---|
| task message | principal | all headers, body, form | header `fleet-signature`, with the credential |
| result | host, or the fleet | run id, status, result, date | field `fleet` of the result, with the credential |
| output | host | the run, and the entry as it is, its number in it | beside it in the stream, with the credential |
| reports | host or principal | the sender, and each report as it is | beside them, in one item of the sender's list |
| control message | fleet or principal | the host's key, and the message as it is | beside it, with the credential |

Messages and control messages name the public key of the host that they are for, so that they mean nothing to another
machine that comes to have the same name.

Checking never fails on foreign text in any other way than by `errors.NotTrusted`.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fleet import canonical, errors, names
from fleet.security.identity import PrincipalIdentity
from fleet.security.keys import KeyPair, Purpose, verify
from fleet.security.trust import Trust

#: Key of the signature in a message's headers.
HEADER = "fleet-signature"
#: Key of the signature in a result.
RESULT_FIELD = "fleet"


class MessageSignature(BaseModel):
    """The header of a signed task message."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    #: who signs, by the fleet's word
    credential: str = Field(max_length=8192)
    signature: str = Field(max_length=128)


class ResultSignature(BaseModel):
    """The field `fleet` of a result."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    #: of the host; empty where the fleet's own key signed
    credential: str = Field("", max_length=8192)
    signature: str = Field(max_length=128)


class SignedOutput(BaseModel):
    """One entry of a run's stream."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    #: a `contracts.output.Entry` as it was signed
    entry: str
    #: of the host
    credential: str = Field(max_length=8192)
    signature: str = Field(max_length=128)


class SignedReports(BaseModel):
    """One item of a report list."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    #: `contracts.reports.Report`s as they were signed, oldest first
    reports: tuple[str, ...] = Field(min_length=1)
    signature: str = Field(max_length=128)


class SignedControl(BaseModel):
    """One item of a control list."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    #: a `contracts.control` message as it was signed
    message: str
    #: of the principal; empty where the fleet's own key signed
    credential: str = Field("", max_length=8192)
    signature: str = Field(max_length=128)


def sign_message(message: dict[str, Any], key: KeyPair, credential: str) -> None:
    """Sign a kombu message (`headers`, `body`, `content-type`, `content-encoding`) in place."""
    headers = message["headers"]
    headers.pop(HEADER, None)
    covered = _covered_message(headers, message["body"], message["content-type"], message["content-encoding"])
    headers[HEADER] = {"credential": credential, "signature": key.sign(Purpose.MESSAGE, covered)}


def check_message(
    headers: Mapping[str, Any], body: object, *, form: tuple[Any, Any], trust: Trust
) -> PrincipalIdentity:
    """Return who signed a message; `form` is its content type and encoding.

    Whether that principal's credential still counts is another question (`Trust.objection`).
    """
    unsigned = {name: value for name, value in headers.items() if name != HEADER}
    try:
        signed = MessageSignature.model_validate(headers.get(HEADER))
    except ValidationError as exc:
        raise errors.NotTrusted("it carries no signature") from exc
    principal = trust.principal(signed.credential)
    try:
        covered = _covered_message(unsigned, body, *form)
    except (ValueError, TypeError, RecursionError) as exc:
        raise errors.NotTrusted("what its signature should cover cannot be written down") from exc
    if not verify(principal.key, Purpose.MESSAGE, covered, signed.signature):
        raise errors.NotTrusted(f"its signature is not {principal.name}'s over these bytes")
    return principal


def sign_result(meta: Mapping[str, Any], key: KeyPair, credential: str) -> str:
    """Return a result in Celery's form as JSON, signed; `credential` is the host's, or empty for the fleet's key."""
    signed = {"credential": credential, "signature": key.sign(Purpose.RESULT, _covered_result(meta))}
    return json.dumps({**meta, RESULT_FIELD: signed})


def check_result(meta: Mapping[str, Any], run_id: str, *, trust: Trust) -> None:
    """Make sure that a result is this run's, and its host's own word or the fleet's; raise `errors.NotTrusted`."""
    if meta.get("task_id") != run_id:
        raise errors.NotTrusted("it is the result of another run")
    try:
        owner = names.host_of_run(run_id)
        signed = ResultSignature.model_validate(meta.get(RESULT_FIELD))
        covered = _covered_result(meta)
    except (ValidationError, ValueError, TypeError, KeyError, RecursionError, errors.InvalidValue) as exc:
        raise errors.NotTrusted("it carries no signature") from exc
    if not signed.credential:
        if not trust.by_fleet(Purpose.RESULT, covered, signed.signature):
            raise errors.NotTrusted("its signature is not the fleet's")
        return
    host = trust.host(signed.credential)
    if host.host != owner:
        raise errors.NotTrusted(f"it is signed by host {host.host!r}, whose run this is not")
    if not verify(host.key, Purpose.RESULT, covered, signed.signature):
        raise errors.NotTrusted(f"its signature is not host {host.host!r}'s")


def sign_output(run_id: str, entry: str, key: KeyPair, credential: str) -> dict[str, str]:
    """Return the fields of one entry of a run's stream; the host vouches for it by its credential."""
    signature = key.sign(Purpose.OUTPUT, _covered_output(run_id, entry))
    return {"entry": entry, "credential": credential, "signature": signature}


def check_output(fields: Mapping[str, str], run_id: str, *, trust: Trust) -> str:
    """Return an entry of a run's stream, its host's own word; raise `errors.NotTrusted`."""
    try:
        owner = names.host_of_run(run_id)
        signed = SignedOutput.model_validate(fields)
        covered = _covered_output(run_id, signed.entry)
    except (ValidationError, ValueError, errors.InvalidValue) as exc:
        raise errors.NotTrusted("it carries no signature") from exc
    host = trust.host(signed.credential)
    if host.host != owner:
        raise errors.NotTrusted(f"it is signed by host {host.host!r}, whose run this is not")
    if not verify(host.key, Purpose.OUTPUT, covered, signed.signature):
        raise errors.NotTrusted(f"its signature is not host {host.host!r}'s")
    return signed.entry


def sign_reports(sender: str, reports: Iterable[str], key: KeyPair) -> str:
    """Return reports of one sender as one item of its list."""
    texts = tuple(reports)
    signature = key.sign(Purpose.REPORTS, _covered_reports(sender, texts))
    return json.dumps({"reports": texts, "signature": signature}, ensure_ascii=False)  # else up to three times as long


def check_reports(item: bytes, sender: str, keys: Iterable[str]) -> tuple[str, ...]:
    """Return the reports in an item of the sender's list, signed by one of these public keys."""
    try:
        signed = SignedReports.model_validate_json(item)
        covered = _covered_reports(sender, signed.reports)
    except (ValidationError, ValueError) as exc:
        raise errors.NotTrusted("not signed reports") from exc
    if not any(verify(key, Purpose.REPORTS, covered, signed.signature) for key in keys):
        raise errors.NotTrusted("its signature is not the sender's")
    return signed.reports


def sign_control(host_key: str, message: str, key: KeyPair, credential: str = "") -> str:
    """Return a control message for one host as an item of its list; `credential` is empty for the fleet's key."""
    signature = key.sign(Purpose.CONTROL, _covered_control(host_key, message))
    return json.dumps({"message": message, "credential": credential, "signature": signature})


def check_control(item: str | bytes, own_keys: Iterable[str], *, trust: Trust) -> tuple[str, PrincipalIdentity | None]:
    """Return a control message for the host that has or had these public keys, and the principal who says it.

    None stands for the fleet itself.
    """
    try:
        signed = SignedControl.model_validate_json(item)
        candidates = [_covered_control(key, signed.message) for key in own_keys]
    except (ValidationError, ValueError) as exc:
        raise errors.NotTrusted("not a signed control message") from exc
    if not signed.credential:
        if not any(trust.by_fleet(Purpose.CONTROL, covered, signed.signature) for covered in candidates):
            raise errors.NotTrusted("its signature is not the fleet's, over this message to this host")
        return signed.message, None
    principal = trust.principal(signed.credential)
    if not any(verify(principal.key, Purpose.CONTROL, covered, signed.signature) for covered in candidates):
        raise errors.NotTrusted(f"its signature is not {principal.name}'s, over this message to this host")
    return signed.message, principal


def _covered_message(headers: Mapping[str, Any], body: object, content_type: object, encoding: object) -> bytes:
    if not isinstance(body, (str, bytes)):
        raise TypeError("a body is text")
    form = {"content-type": content_type, "content-encoding": encoding}
    digest = hashlib.sha256(body if isinstance(body, bytes) else body.encode()).hexdigest()
    return canonical.encode({"headers": dict(headers), "body_sha256": digest, **form})


def _covered_result(meta: Mapping[str, Any]) -> bytes:
    return canonical.encode({name: meta[name] for name in ("task_id", "status", "result", "date_done")})


def _covered_output(run_id: str, entry: str) -> bytes:
    return canonical.encode([run_id, entry])


def _covered_reports(sender: str, reports: Iterable[str]) -> bytes:
    return canonical.encode([sender, *reports])


def _covered_control(host_key: str, message: str) -> bytes:
    return canonical.encode([host_key, message])
