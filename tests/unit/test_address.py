"""Addresses of brokers: what is one, what is refused, and that three libraries read the same in it."""

from dataclasses import replace

import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st
from kombu.utils.url import url_to_parts
from redis.connection import parse_url

from fleet import address, errors


def test_a_url_is_taken_apart() -> None:
    found = address.parse("rediss://alice:p%40ss%2Fw@broker.example:7000/0")
    assert (found.host, found.port, found.tls) == ("broker.example", 7000, True)
    assert (found.username, found.password) == ("alice", "p@ss/w")


def test_what_is_left_out_has_its_default() -> None:
    found = address.parse("rediss://broker.example")
    assert (found.port, found.username, found.password) == (6379, None, None)


def test_it_shows_no_password() -> None:
    found = address.parse("rediss://alice:hunter2@broker.example:7000/0")
    assert str(found) == "rediss://alice:***@broker.example:7000/0"
    assert "hunter2" not in repr(found)


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST", "127.0.0.1", "127.255.3.4", "[::1]", "[0:0:0:0:0:0:0:1]"])
def test_plaintext_reaches_this_machine(host: str) -> None:
    assert not address.parse(f"redis://:pw@{host}:6379/0").tls


@pytest.mark.parametrize(
    "host",
    [
        "broker",
        "10.0.0.7",
        "0.0.0.0",
        "[::]",
        "[fd00::7]",
        "[::ffff:127.0.0.1]",
        "127.1",
        "2130706433",
        "0x7f.0.0.1",
        "128.0.0.1",
        "localhost.example",
        "127.0.0.1.example",
        "localhost@broker",
    ],
)
def test_plaintext_to_another_machine_is_refused(host: str) -> None:
    with pytest.raises(errors.InvalidValue) as caught:
        address.parse(f"redis://{host}:6379/0", field="FLEET_BROKER_URL")
    assert caught.value.field == "FLEET_BROKER_URL"
    assert "in plaintext to another machine; write rediss://…" in str(caught.value)
    assert address.parse(f"rediss://{host}:6379/0").tls


def test_no_address_is_plaintext_to_another_machine_however_it_is_made() -> None:
    found = address.parse("redis://127.0.0.1")
    with pytest.raises(ValueError, match="plaintext to broker"):
        replace(found, host="broker")
    with pytest.raises(ValueError, match="plaintext to broker"):
        replace(address.parse("rediss://broker"), tls=False)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("rediss://:hunter2@b/0?ssl_cert_reqs=none", "has options after the ? (ssl_cert_reqs)"),
        ("rediss://:hunter2@b/0?ssl_check_hostname=false&ssl_ca_certs=x", "(ssl_check_hostname, ssl_ca_certs)"),
        ("rediss://:hunter2@b/0?", "has a query"),
        ("rediss://:hunter2@b/0#x", "has a fragment"),
        ("rediss://:hunter2@b/0#", "has a fragment"),
        ("rediss://:hun?ter2@b/0", "a ? in the password is written %3F"),
        ("rediss://:hun#ter2@b/0", "a # in the password is written %23"),
        ("rediss://:hun/ter2@b/0", "a / in the password is written %2F"),
        ("redis+socket:///run/redis.sock", "is not a broker URL"),
        ("unix:///run/redis.sock", "is not a broker URL"),
        ("http://broker", "is not a broker URL"),
        ("rediss:broker", "is not a broker URL"),
        ("", "is not a broker URL"),
        ("rediss:///0", "names no host"),
        ("rediss://:hunter2@/0", "names no host"),
        ("rediss://b;rediss://evil", "has no usable host name"),
        ("rediss://b/0;rediss://evil", "names a database that is not 0"),
        ("rediss://b/zero", "names a database that is not 0"),
        ("rediss://b/1", "names a database that is not 0"),
        ("rediss://socket%3A%2F%2Frun/0", "has no usable host name"),
        ("rediss://[fe80::1%25eth0]/0", "has no usable host name"),
        ("rediss://b:0/0", "has a port that cannot be"),
        ("rediss://b:65536/0", "is no URL"),
        ("rediss://[::1/0", "is no URL"),
        ("rediss://:hun ter2@b/0", "has spaces or control characters"),
        ("rediss://b/0\n", "has spaces or control characters"),
    ],
)
def test_anything_else_is_refused_with_the_way_out_and_without_the_password(url: str, said: str) -> None:
    with pytest.raises(errors.InvalidValue) as caught:
        address.parse(url, field="broker_url")
    assert said in str(caught.value)
    assert str(caught.value).startswith("broker_url: ")
    assert caught.value.remedy
    assert "hun" not in str(caught.value)
    assert "\n" not in str(caught.value)


@given(
    username=st.one_of(st.none(), st.text(min_size=1)),
    password=st.one_of(st.none(), st.text(min_size=1)),
    host=st.sampled_from(["broker.example", "10.0.0.7", "fd00::7"]),
    port=st.integers(1, 65535),
)
def test_every_library_reads_the_same_in_its_url(
    username: str | None, password: str | None, host: str, port: int
) -> None:
    made = address.Address(host=host, port=port, username=username, password=password, tls=True, ca=None)
    try:
        url = made.url
    except UnicodeEncodeError:
        return  # a lone surrogate, which no URL has
    assert address.parse(url) == made
    by_redis = parse_url(url)
    assert by_redis.pop("connection_class") is redis.SSLConnection
    login = {name: value for name, value in (("username", username), ("password", password)) if value}
    assert by_redis == {"host": host, "port": port, "db": 0, **login}
    by_kombu = url_to_parts(url)
    assert ";" not in url
    assert by_kombu == ("rediss", host, port, username, password, "0", {})


@given(text=st.text(), scheme=st.sampled_from(["", "redis://", "rediss://", "rediss://u:p@"]))
def test_whatever_is_written_is_an_address_or_one_line_that_names_the_field(text: str, scheme: str) -> None:
    said = "broker_url: "
    try:
        found = address.parse(scheme + text)
    except errors.InvalidValue as exc:
        said = str(exc)
    else:
        assert found.tls or address.is_loopback(found.host)
        assert address.parse(found.url) == found
    assert said.startswith("broker_url: ")
    assert "\n" not in said
