"""Pages: what is answered to whom, and that nobody who can connect keeps others out, or harms the process."""

import http.client
import socket
import threading
from collections.abc import Iterator
from http import HTTPStatus

import pytest

from fleet.local import pages
from fleet.local.pages import Page, PageServer
from tests.services.waiting import until


def hello() -> Page:
    return Page(body=b"hello\n", content_type="text/plain")


def broken() -> Page:
    raise RuntimeError("the password is hush")


@pytest.fixture
def server() -> Iterator[PageServer]:
    served = PageServer("127.0.0.1", 0, {"/": hello, "/broken": broken})
    served.start()
    yield served
    served.stop()
    until(lambda: not of_pages(), "no thread is left")


def of_pages() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "pages"]


def ask(server: PageServer, path: str = "/", *, method: str = "GET") -> tuple[int, bytes, http.client.HTTPMessage]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    try:
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, answer.read(), answer.headers
    finally:
        connection.close()


def send(server: PageServer, data: bytes) -> bytes:
    """Send bytes as they are, and return all that comes back until the server closes; nothing where it breaks off."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as raw:
        try:
            raw.sendall(data)
            found = b""
            while more := raw.recv(65536):
                found += more
        except ConnectionError:
            return b""
        return found


def test_a_page_is_answered_and_a_head_is_its_headers_alone(server: PageServer) -> None:
    status, body, headers = ask(server)
    assert (status, body, headers["Cache-Control"]) == (200, b"hello\n", "no-store")
    status, body, headers = ask(server, method="HEAD")
    assert (status, body, headers["Content-Length"]) == (200, b"", "6")
    assert ask(server, "/?a=b")[0] == 200


def test_what_is_not_there_is_not_found_and_nothing_can_be_changed(server: PageServer) -> None:
    for path in ("/other", "/../", "/%2e", "/%00", "/%c3%a9", "http://elsewhere/"):
        assert ask(server, path)[0] == HTTPStatus.NOT_FOUND
    for method in ("POST", "PUT", "DELETE", "OPTIONS", "TRACE", "BREW"):
        status, _, headers = ask(server, method=method)
        assert (status, headers["Allow"]) == (HTTPStatus.METHOD_NOT_ALLOWED, "GET, HEAD")


def test_a_page_that_fails_says_so_and_nothing_else(server: PageServer, caplog: pytest.LogCaptureFixture) -> None:
    status, body, _ = ask(server, "/broken")
    assert (status, body) == (500, b"Internal Server Error\n")
    assert "page.failed path=/broken" in caplog.text


@pytest.mark.parametrize(
    "request_line",
    [
        b"GET /" + b"a" * 100_000,
        b"GET / HTTP/1.1\r\n" + b"X-Long: " + b"a" * 100_000,
        b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 20_000,
    ],
    ids=["line", "header", "headers"],
)
def test_a_giant_request_is_refused_unread(server: PageServer, request_line: bytes) -> None:
    answer = send(server, request_line)
    assert not answer or b" 431 " in answer.splitlines()[0]
    assert ask(server)[0] == 200


@pytest.mark.parametrize(
    "junk", [b"\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n", b"\xff\xfe\n", b"GET\n"]
)
def test_what_is_no_http_harms_nothing(server: PageServer, junk: bytes) -> None:
    answer = send(server, junk)
    assert not answer or b" 400 " in answer.splitlines()[0] or b"Error code: 400" in answer
    assert ask(server)[0] == 200


def test_a_crowd_of_slow_clients_keeps_nobody_out_and_takes_no_more_than_its_threads(server: PageServer) -> None:
    crowd = [
        socket.create_connection(("127.0.0.1", server.port), timeout=30) for _ in range(10 * pages.MOST_CONNECTIONS)
    ]
    try:
        for slow in crowd:
            try:
                slow.sendall(b"GET / HT")
            except ConnectionError:
                continue  # cut already, for one that came later
        assert ask(server)[0] == 200
        # beside those of connections there is the one that accepts
        assert len(of_pages()) <= pages.MOST_CONNECTIONS + 1
    finally:
        for slow in crowd:
            slow.close()


def test_one_that_says_nothing_is_cut_in_time(server: PageServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "LONGEST_SECONDS", 0.2)
    assert send(server, b"GET / HTTP/1.1\r\nHost: ") == b""


def test_one_that_takes_no_answer_is_cut_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "LONGEST_SECONDS", 0.2)
    asked = threading.Event()

    def a_large_one() -> Page:
        asked.set()
        return Page(body=b"a" * 50_000_000, content_type="text/plain")

    large = PageServer("127.0.0.1", 0, {"/": a_large_one})
    large.start()
    try:
        with socket.create_connection(("127.0.0.1", large.port), timeout=30) as idle:
            idle.sendall(b"GET / HTTP/1.0\r\n\r\n")
            assert asked.wait(30)
            until(lambda: len(of_pages()) == 1, "its thread has ended")
    finally:
        large.stop()


def test_stopping_cuts_who_is_connected_and_can_be_repeated() -> None:
    served = PageServer("127.0.0.1", 0, {"/": hello})
    served.start()
    with socket.create_connection(("127.0.0.1", served.port), timeout=30) as idle:
        until(lambda: len(of_pages()) == 2, "it has a thread")
        served.stop()
        served.stop()
        assert idle.recv(1) == b""
    until(lambda: not of_pages(), "no thread is left")


def test_an_address_of_the_other_family_is_listened_on() -> None:
    try:
        served = PageServer("::1", 0, {"/": hello})
    except OSError:
        pytest.skip("this machine has no IPv6 loopback")
    served.start()
    try:
        connection = http.client.HTTPConnection("::1", served.port, timeout=30)
        connection.request("GET", "/")
        assert connection.getresponse().status == 200
        connection.close()
    finally:
        served.stop()
    until(lambda: not of_pages(), "no thread is left")
