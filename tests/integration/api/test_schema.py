"""The description of the API (OpenAPI), held against the API itself by schemathesis, and against what is answered."""

import copy
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from fleet.api import replies
from fleet.bearer import Scope
from tests.services.rest import Rest, parsed

pytestmark = [pytest.mark.xdist_group("rest"), pytest.mark.timeout(600)]

#: What ends hosts, principals and tokens, starts processes, or follows a run to its end: only with names that
#: schemathesis makes up, and not in sequences where one answer gives the name for the next request.
_ENDING = (
    r"(/hosts/\{host\}|/bearer-tokens/\{token\}|/worker/(start|stop)|/principals/\{principal\}(/level)?"
    r"|/runs/\{run\}/events)$"
)


@pytest.mark.parametrize(
    "chosen",
    [("--exclude-path-regex", _ENDING), ("--include-path-regex", _ENDING, "--phases", "examples,coverage,fuzzing")],
    ids=["most", "ending"],
)
def test_schemathesis_finds_nothing(rest: Rest, tmp_path: Path, chosen: tuple[str, ...]) -> None:
    """Every operation, with what fits its description and with what does not, as an admin."""
    rest.system.introduce(f"fuzzer-{len(chosen)}")
    said = subprocess.run(
        [
            str(Path(sys.executable).with_name("schemathesis")),
            "--config-file",
            str(Path(__file__).with_name("schemathesis.toml")),
            "run",
            f"{rest.url}/openapi.json",
            "--header",
            f"Authorization: Bearer {rest.token(f'fuzzer-{len(chosen)}', Scope.ADMIN)}",
            *chosen,
            "--no-color",
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=580,
        check=False,
    )
    assert said.returncode == 0, said.stdout[-20_000:] + said.stderr[-5_000:]
    assert "No issues found" in said.stdout, said.stdout


def bodies(described: Any) -> Iterator[tuple[str, str, Any]]:
    """Yield what every operation takes, and what it answers where all is well: where, media type, how it looks."""
    for path, operations in described["paths"].items():
        for method, operation in operations.items():
            told = {"request": operation["requestBody"]} if "requestBody" in operation else {}
            told |= {status: answer for status, answer in operation["responses"].items() if status.startswith("2")}
            assert len(told) > ("requestBody" in operation), f"{method} {path}"
            for name, each in told.items():
                for media_type, content in each["content"].items():
                    yield f"{method} {path} {name}", media_type, content


def examples_of(described: Any, schema: Any) -> list[Any]:
    """Return the examples that a schema has, or what it is made of; one of a list is a list of one."""
    if "$ref" in schema:
        return examples_of(described, described["components"]["schemas"][schema["$ref"].rpartition("/")[2]])
    if "examples" in schema:
        return list(schema["examples"])
    if schema.get("type") == "array":
        return [[each] for each in examples_of(described, schema["items"])]
    return [each for alternative in schema.get("anyOf", ()) for each in examples_of(described, alternative)]


def fits(described: Any, schema: Any, value: Any) -> None:
    # what a reply need not refuse, its example has no more than what is described either
    components = copy.deepcopy(described["components"]["schemas"])
    for each in components.values():
        if each.get("type") == "object" and "properties" in each and "oneOf" not in each:
            each.setdefault("additionalProperties", False)
    whole = {**schema, "components": {"schemas": components}}
    jsonschema_rs.Draft202012Validator(whole, validate_formats=True).validate(value)


def test_everything_that_is_taken_or_answered_has_an_example_that_fits(rest: Rest) -> None:
    described = rest.get("/openapi.json", by=None).json
    assert described["openapi"].startswith("3.1.")
    seen = 0
    for where, media_type, content in bodies(described):
        if media_type == "text/event-stream":
            events = list(parsed(iter(content["example"].splitlines())))
            assert [event["event"] for event in events] == ["run.succeeded", "end"]
            for event, of in zip(events, ("AuditEvent", "RunWithAttempts"), strict=True):
                fits(described, content["itemSchema"], {**event, "data": json.dumps(event["data"])})
                fits(described, {"$ref": f"#/components/schemas/{of}"}, event["data"])
            continue
        assert media_type == "application/json", where
        found = examples_of(described, content["schema"])
        assert found, f"{where} has no example"
        for each in found:
            fits(described, content["schema"], each)
        seen += 1
    assert seen > 50


def test_every_field_of_a_record_is_described(rest: Rest) -> None:
    """What `-o json` prints, and what the API describes, are the same records."""
    rest.post("/api/admin/push-task", {"agent_id": "h1", "task": "fleet.host.ping"})
    described = {
        "hosts list": ("/api/hosts", replies.Host),
        "task list": ("/api/runs", replies.Run),
        "principal list": ("/api/principals", replies.Principal),
        "token list": ("/api/tokens", replies.Token),
        "principal tokens": ("/api/principals/alice/tokens", replies.BearerToken),
        "audit list": ("/api/audit", replies.AuditEvent),
    }
    for words, (path, model) in described.items():
        printed = rest.system.command(*words.replace("hosts", "host").split(), "-o", "jsonl").stdout.splitlines()
        answered = rest.get(path, scope=Scope.ADMIN).json
        assert set(model.model_fields) == set(answered[0]), words
        assert printed, words
        assert set(answered[0]) == set(json.loads(printed[0])), words
