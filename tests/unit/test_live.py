"""Live output: passed on if the worker takes it, and never waited for."""

import contextlib
import json
import math
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.services.waiting import until
from workers.host.live import MOST_OF_A_FLOOD_BYTES, MOST_WAITING_BYTES, RATE_BYTES, Live


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    mine, its = socket.socketpair()
    with mine, its:
        mine.settimeout(0)
        yield mine, its


def read(mine: socket.socket) -> list[Any]:
    said = b""
    while True:
        try:
            data = mine.recv(1 << 20)
        except BlockingIOError:
            break
        if not data:
            break
        said += data
    *lines, rest = said.split(b"\n")
    assert rest == b""
    return [json.loads(line) for line in lines]


def passed_on(live: Live, mine: socket.socket) -> list[Any]:
    """Return all that waits, as a worker reads it."""
    told: list[bytes] = []
    while live.pass_on(hurried=True) < math.inf:
        told.append(mine.recv(1 << 20))
    with contextlib.suppress(BlockingIOError):
        while True:
            told.append(mine.recv(1 << 20))
    return [json.loads(line) for line in b"".join(told).splitlines()]


def test_what_is_written_is_passed_on_as_text_in_its_order(pair: tuple[socket.socket, socket.socket]) -> None:
    mine, its = pair
    live = Live(its)
    live.add("stdout", b"one \xc3")
    live.add("stderr", b"two\n")
    live.add("stdout", b"\xbc\xff")
    assert live.pass_on() == math.inf
    assert read(mine) == [["stdout", "one "], ["stderr", "two\n"], ["stdout", "ü\ufffd"]]


def test_a_worker_that_reads_nothing_holds_nothing_up_and_is_told_what_it_missed(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    mine, its = pair
    live = Live(its)
    begun = time.monotonic()
    lines = 0
    while lines < 100_000:
        live.add("stdout", b"a line of text\n" * 1000)
        lines += 1000
        live.pass_on()
        assert live._bytes <= MOST_WAITING_BYTES
    rest = live.finish()
    assert time.monotonic() - begun < 30  # two on an idle machine; waiting for the reader would take for ever
    mine.settimeout(30)
    with ThreadPoolExecutor() as threads:
        threads.submit(lambda: (its.sendall(rest), its.shutdown(socket.SHUT_WR)))
        told = read(mine)
    heard = sum(text.count("\n") for name, text, *_ in told if name == "stdout")
    missed = sum(count for name, count, *_ in told if name == "missed")
    assert 0 < heard < lines
    assert heard + missed == lines


def test_the_newest_is_kept_and_what_is_missing_is_told_before_it(pair: tuple[socket.socket, socket.socket]) -> None:
    mine, its = pair
    live = Live(its)
    for number in range(100_000):
        live.add("stdout", b"%d\n" % number)
        live.add("stderr", b"%d\n" % number)
    told = passed_on(live, mine)
    assert told[0][0] == "missed"
    assert told[0][2] == {"stdout": False, "stderr": False}
    first = f"{told[0][1] // 2}\n"
    assert told[1][1] == first


def test_as_much_as_is_kept_waits_for_a_worker_that_is_slow(pair: tuple[socket.socket, socket.socket]) -> None:
    mine, its = pair
    live = Live(its)
    written = b"".join(b"%d\n" % number for number in range(1_000_000))[:MOST_WAITING_BYTES]
    live.add("stdout", written)
    told = passed_on(live, mine)
    assert "".join(text for _name, text in told).encode() == written


def test_once_something_was_dropped_less_waits_and_where_a_line_was_cut_is_told(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    mine, its = pair
    live = Live(its)
    live.add("stdout", b"one\ntw")
    assert live.pass_on() == math.inf
    live.add("stdout", b"o\n" + b"x" * MOST_WAITING_BYTES)
    assert live._bytes <= MOST_OF_A_FLOOD_BYTES
    assert [line if line[0] == "missed" else line[:1] for line in passed_on(live, mine)][:3] == [
        ["stdout"],
        ["missed", 1, {"stdout": True}],
        ["stdout"],
    ]
    live.add("stdout", b"x" * 2 * MOST_OF_A_FLOOD_BYTES)  # of one long line
    assert passed_on(live, mine)[0] == ["missed", 1, {"stdout": True}]


def test_no_more_than_its_rate_is_passed_on(pair: tuple[socket.socket, socket.socket]) -> None:
    mine, its = pair
    live = Live(its)
    passed, begun = 0, time.monotonic()
    while time.monotonic() - begun < 0.5:
        live.add("stdout", b"x" * 65536)
        live.pass_on()
        passed += sum(len(text) for name, text, *_ in read(mine) if name == "stdout")
    assert passed < RATE_BYTES * (1.2 + time.monotonic() - begun)


def test_a_worker_that_has_gone_is_no_error(pair: tuple[socket.socket, socket.socket]) -> None:
    mine, its = pair
    mine.close()
    live = Live(its)
    live.add("stdout", b"hello\n" * 100_000)
    assert until(lambda: live.pass_on() == math.inf, "it is given up")
    live.add("stdout", b"more\n")
    assert live.finish() == b""
