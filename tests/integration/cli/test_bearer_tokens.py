"""`fleet principal token | tokens | revoke-token`, and what `fleet api` refuses to start on, as people type them."""

from pathlib import Path

from tests.integration.cli.conftest import Cli
from tests.services.broker import Broker


def test_a_token_is_printed_once_listed_and_revoked(cli: Cli) -> None:
    made = cli("principal", "token", "--scope", "admin", "--description", "CI \x1b[31m", "-o", "json").json
    assert made["token"].startswith(f"fleetapi.{made['id']}.")
    alone = cli("principal", "token", "-o", "id").out
    assert alone.startswith("fleetapi.")
    assert alone.count("\n") == 1
    shown = cli("principal", "tokens")
    assert made["token"].split(".")[2] not in shown.out
    assert "\x1b" not in shown.out
    listed = cli("principal", "tokens", "alice", "-o", "json").json
    assert {(each["scope"], each["state"]) for each in listed} == {("admin", "valid"), ("use", "valid")}
    assert cli("principal", "revoke-token", made["id"]).code == 0
    [ended] = [each for each in cli("principal", "tokens", "-o", "json").json if each["id"] == made["id"]]
    assert ended["state"] == "revoked"
    people = cli("principal", "token")
    assert people.out.startswith("fleetapi.")
    assert "curl" in people.err


def test_what_cannot_be_made_says_why_and_what_to_do(cli: Cli) -> None:
    assert cli("principal", "create", "intern-1", "--level", "intern").code == 0
    refused = cli("principal", "token", "intern-1", "--scope", "admin")
    assert refused.code == 4
    assert "autonomous principals of all hosts, and 'intern-1' is intern" in refused.error
    missing = cli("principal", "token", "nobody")
    assert missing.code == 4
    assert "has no credential" in missing.error
    unknown = cli("principal", "revoke-token", "0" * 16)
    assert unknown.code == 2
    assert "`fleet principal tokens`" in unknown.error


def test_the_api_does_not_start_on_what_cannot_work(cli: Cli, broker: Broker, tmp_path: Path) -> None:
    taken = cli("api", "--port", str(broker.port))
    assert taken.code == 1
    assert f"cannot listen on 127.0.0.1 port {broker.port}" in taken.error
    half = cli("api", "--port", "0", FLEET_API_TLS_CERT=str(tmp_path / "no.pem"))
    assert half.code == 2
    assert "FLEET_API_TLS_KEY" in half.error
    none = cli("api", "--port", "0", FLEET_API_TLS_CERT=str(tmp_path / "no.pem"), FLEET_API_TLS_KEY="no.key")
    assert none.code == 1
    assert "cannot be used" in none.error
    keyless = cli("api", "--port", "0", FLEET_SIGNING_KEYS=str(tmp_path / "elsewhere.json"))
    assert keyless.code == 1
    assert "signing keys" in keyless.error
