"""Bad input: one line that says what, with what value, and what to do; the documented exit code; no traceback."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.integration.cli.conftest import Cli
from tests.services.broker import Broker


@pytest.fixture
def bare(bare: Cli) -> Cli:
    """Here most commands are starts of Python, as people have them."""
    return replace(bare, forked=False)


@pytest.fixture
def cli(cli: Cli) -> Cli:
    return replace(cli, forked=False)


def test_where_nothing_is_there_it_says_how_to_begin(bare: Cli) -> None:
    done = bare("ps")
    assert done.code == 4
    assert "principal 'alice' has no credential" in done.error
    assert "`fleet up` makes one with a fleet on this machine" in done.error
    assert done.out == ""


def test_without_a_broker_it_says_how_to_get_one(bare: Cli) -> None:
    done = bare("token", "create")
    assert done.code == 2
    assert "no broker is known here; start one with `fleet up`, or set FLEET_BROKER_URL" in done.error
    assert done.out == ""


@pytest.mark.parametrize(
    ("url", "code", "said"),
    [
        ("http://127.0.0.1:6379", 2, "FLEET_BROKER_URL: 'http://127.0.0.1:6379': it is not a broker URL"),
        ("redis://:hunter2@127.0.0.1:notaport/0", 2, "redis://"),
        ("redis://:hunter2@broker.example:6379/0", 2, "plaintext to another machine; write rediss://…"),
        ("rediss://:hunter2@broker.example/0?ssl_cert_reqs=none", 2, "has options after the ? (ssl_cert_reqs)"),
        ("rediss://:hunter2#@broker.example/0", 2, "has a fragment, from the # on"),
        ("redis://:hunter2@127.0.0.1:1/0", 5, "127.0.0.1:1/0 cannot be reached"),
    ],
)
def test_a_wrong_broker_url_is_shown_without_its_password(bare: Cli, url: str, code: int, said: str) -> None:
    done = bare("token", "create", FLEET_BROKER_URL=url)
    assert done.code == code
    assert said in done.error
    assert "hunter2" not in done.err


def test_a_broker_that_wants_a_password_says_where_it_is_written(cli: Cli, broker: Broker) -> None:
    with broker.connect() as client:
        client.config_set("requirepass", "hunter2")
        try:
            missing = cli("ps")
            wrong = cli("ps", FLEET_BROKER_URL=broker.url.replace("//", "//:hunter3@"))
        finally:
            client.execute_command("AUTH", "hunter2")
            client.config_set("requirepass", "")
    assert missing.code == wrong.code == 5
    assert "password" in missing.error
    assert "redis://:PASSWORD@HOST:PORT/0" in missing.error
    assert "password" in wrong.error
    assert "hunter3" not in wrong.err


def test_a_database_that_is_not_there_is_not_made_by_reading(bare: Cli, tmp_path: Path) -> None:
    done = bare("task", "list")
    assert done.code == 5
    assert f"there is no database at {tmp_path / 'state' / 'fleet.db'}" in done.error
    assert not (tmp_path / "state" / "fleet.db").exists()


def test_a_wrong_database_url_is_named(bare: Cli) -> None:
    done = bare("task", "list", FLEET_DATABASE_URL="mysql://root:hunter2@localhost/fleet")
    assert done.code == 2
    assert "FLEET_DATABASE_URL" in done.error
    assert "hunter2" not in done.err


def test_a_database_that_refuses_is_named_without_its_password(bare: Cli) -> None:
    done = bare("task", "list", FLEET_DATABASE_URL="postgresql://fleet:hunter2@127.0.0.1:1/fleet")
    assert done.code == 5
    assert "127.0.0.1" in done.error
    assert "hunter2" not in done.err


def test_a_file_that_is_no_database_is_named(bare: Cli, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("not a database\n" * 100)
    done = bare("task", "list", FLEET_DATABASE_URL=f"sqlite:///{tmp_path / 'notes.txt'}")
    assert done.code == 5
    assert "notes.txt" in done.error


@pytest.mark.parametrize("host", ["Web_1", "../x", "*", "", "h" * 64, "Ｈ1", "-a"])
def test_a_bad_host_id_says_what_one_looks_like(bare: Cli, host: str) -> None:
    done = replace(bare, forked=True)("worker", "--host-id", host)
    assert done.code == 2
    assert "host id: " in done.error
    assert "use 1 to 63 of a-z, 0-9 and '-'" in done.error


@pytest.mark.parametrize(
    "words", [("push-task", "fleet.host.ping", "--host"), ("host", "show"), ("enroll", "--host-id")]
)
def test_a_bad_host_id_is_refused_wherever_one_is_given(bare: Cli, words: tuple[str, ...]) -> None:
    done = bare(*words, "a/b")
    assert done.code == 2
    assert "host id: 'a/b' is not a host id" in done.error


def test_an_unknown_setting_has_a_suggestion(bare: Cli, tmp_path: Path) -> None:
    by_variable = bare("ps", FLEET_BROKR_URL="redis://127.0.0.1")
    assert by_variable.code == 2
    assert "FLEET_BROKR_URL: no such setting; did you mean 'FLEET_BROKER_URL'?" in by_variable.error
    (tmp_path / "fleet.toml").write_text('brokr_url = "redis://127.0.0.1"\n')
    by_file = bare("ps", "-c", str(tmp_path / "fleet.toml"))
    assert by_file.code == 2
    assert "unknown setting 'brokr_url'; did you mean 'broker_url'?" in by_file.error


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["lst"], "no such command 'lst'"),
        (["hots"], "no such command 'hots'; did you mean 'host'?; see `fleet --help`"),
        (["host", "lst"], "no such command 'lst'; did you mean 'list'?; see `fleet host --help`"),
        (["push-task", "fleet.host.ping", "--hots", "a"], "no such option --hots; did you mean --host"),
        (["task", "list", "--state", "done"], "'done' is not one of"),
        (["token", "create", "--ttl", "15"], "'15' is no duration; write it like 15m, 60s, 1h30m or 2d"),
        (["push-task", "fleet.host.pong", "--all"], "no task named 'fleet.host.pong'; did you mean 'fleet.host.ping'?"),
        (["push-task", "fleet.host.ping"], "use --all to mean every host"),
        (["push-task", "fleet.host.ping", "-l", ""], "'' is no selector"),
        (["push-task", "fleet.host.ping", "--all", "--host", "a"], "use one of the three"),
        (["push-task", "fleet.host.ping", "--host", "a", "--timeout", "5s"], "--timeout goes with --wait"),
        (["push-task", "fleet.containers.restart", "--host", "a"], "it takes container: "),
        (["push-task", "fleet.containers.restart", "--host", "a", "--arg", "container"], "is not KEY=VALUE"),
        (["task", "show", "edge-7:123"], "a task id reads HOST:UUID"),
        (["-o", "xml", "ps"], "'xml' is not one of"),
    ],
)
def test_a_slip_is_a_usage_error_that_helps(cli: Cli, words: list[str], said: str) -> None:
    done = replace(cli, forked=True)(*words)
    assert done.code == 2
    assert said in done.error
    assert done.out == ""


def test_an_error_is_json_for_programs_wherever_the_option_stands(cli: Cli) -> None:
    for words in (
        ("--json", "task", "show", "x:y"),
        ("task", "show", "x:y", "-o", "json"),
        ("task", "--json", "show", "x:y"),
    ):
        done = cli(*words)
        assert done.code == 2
        assert json.loads(done.err)["error"]["code"] == "invalid_value"
        assert done.out == ""


def test_a_traceback_is_shown_by_debug_only(bare: Cli) -> None:
    plain = bare("ps")
    assert "Traceback" not in plain.err
    with pytest.raises(AssertionError, match="Traceback"):
        bare("ps", "--debug")


def test_a_reader_that_goes_away_is_no_error(cli: Cli) -> None:
    process = cli.start("completion", "bash")
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    said = process.stderr.read()
    assert said == ""
    assert process.wait(30) in {0, 141}
    process.stderr.close()
