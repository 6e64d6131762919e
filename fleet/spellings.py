"""Spellings: the forms in which a secret may stand in a text, each as what may be at its places.

They are the value itself; the same escaped as in URLs or in JSON, wholly or in part; in hexadecimal; and in base64
(both alphabets, padded or not, also in lines of 60 characters or more), wherever the value stands in what was encoded.
Every form has an anchor, bytes that stand in it in any case.
"""

import json
import re
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from functools import cache
from itertools import groupby, product

#: What one place of a form may be: one of some words, each a sequence of sets of bytes.
_Word = tuple[bytes, ...]
_Place = tuple[_Word, ...]

#: What nobody escapes (RFC 3986, section 2.3).
_UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_BASE64 = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
_ALPHABETS = (f"{_BASE64}+/".encode(), f"{_BASE64}-_".encode())
#: Encoders that break their lines write 64 or 76 characters in each (RFC 7468, RFC 2045).
_LINE_END: _Place = ((b"\r", b"\n"), (b"\n",), ())
_PADDING: _Place = ((b"=", b"="), (b"=",), ())
#: Of two neighboring pieces of base64, each so long at most, a line break leaves one whole.
_PIECE = 30
#: An anchor that is shorter would be found everywhere.
_SHORTEST_ANCHOR = 3


@dataclass(frozen=True)
class Form:
    """One way in which a secret may stand in a text."""

    places: tuple[_Place, ...]
    #: stands in it in any case; empty where nothing does
    anchor: bytes

    @property
    def longest(self) -> int:
        return sum(max(map(len, place)) for place in self.places)

    @property
    def expression(self) -> bytes:
        return b"".join(map(_expression, self.places))

    def may_go_on(self, text: bytes, start: int, line_ends: AbstractSet[int]) -> bool:
        """Say whether all of a text from `start` on may be the beginning of it; `line_ends` are those of encoders.

        If a line of base64 could end everywhere, the last letter of any line would be the beginning of some form, and
        wait for the next line.
        """
        states = self._at(0)
        for index in range(start, len(text)):
            following: set[tuple[int, int, int]] = set()
            for number, which, seen in states:
                place = self.places[number]
                word = place[which]
                if text[index] not in word[seen] or (place is _LINE_END and not seen and index not in line_ends):
                    continue
                following |= {(number, which, seen + 1)} if seen + 1 < len(word) else self._at(number + 1)
            if not following:
                return False
            states = following
        return True

    def _at(self, number: int) -> set[tuple[int, int, int]]:
        """Return what may come at a place: its number, which word, and how much of that was seen; not what is empty."""
        states: set[tuple[int, int, int]] = set()
        for after in range(number, len(self.places)):
            words = self.places[after]
            states |= {(after, which, 0) for which, word in enumerate(words) if word}
            if all(words):
                break
        return states

    def openings(self, length: int) -> Iterator[bytes]:
        """Yield all that the first bytes may be."""
        return _openings(self.places, length)


def of(value: bytes) -> Iterator[Form]:
    """Yield the forms of a value."""
    try:
        yield _written(value.decode())
    except UnicodeDecodeError:
        for escaped in (value, _percent(value, b"%%%02X"), _percent(value, b"%%%02x")):
            yield _exactly(escaped)
    for digits in (value.hex(), value.hex().upper()):
        yield _exactly(digits.encode())
    for before, alphabet in product(range(3), _ALPHABETS):
        yield from _in_base64(value, before, alphabet)


def _percent(value: bytes, escape: bytes) -> bytes:
    return b"".join(bytes((each,)) if chr(each) in _UNRESERVED else escape % each for each in value)


def _exactly(text: bytes) -> Form:
    return Form(tuple((_literal(bytes((each,))),) for each in text), text)


def _written(value: str) -> Form:
    """Return the form of a text in which every character that somebody escapes is escaped or not."""
    runs = ("".join(run) for plain, run in groupby(value, key=_UNRESERVED.__contains__) if plain)
    anchor = max(runs, key=len, default="")
    # Backslashes in a row are one place: of which of them another one is the escape, could be tried in too many ways.
    places = (
        _backslashes(len(list(run))) if character == "\\" else _character(character)
        for character, run in _one_by_one(value)
    )
    return Form(tuple(places), anchor.encode() if len(anchor) >= _SHORTEST_ANCHOR else b"")


def _one_by_one(value: str) -> Iterator[tuple[str, str]]:
    """Yield each character by itself, but backslashes by the run."""
    for character, run in groupby(value):
        found = "".join(run)
        yield from [(character, found)] if character == "\\" else [(character, character)] * len(found)


def _backslashes(count: int) -> _Place:
    percent, in_json, *_rest = _character("\\")
    some = tuple(_literal(b"\\" * number) for number in range(2 * count, count - 1, -1))
    return (percent * count, in_json * count, *some)


def _character(character: str) -> _Place:
    encoded = character.encode()
    if character in _UNRESERVED:
        return (_literal(encoded),)
    percent = tuple(part for each in encoded for part in (b"%", *_hexadecimal(f"{each:02x}")))
    units = character.encode("utf-16-be").hex()
    numbers = (units[index : index + 4] for index in range(0, len(units), 4))
    in_json = tuple(part for number in numbers for part in (b"\\", b"u", *_hexadecimal(number)))
    short = json.dumps(character)[1:-1].encode()
    others = {" ": b"+", "/": b"\\/"}.get(character, short)
    words: list[_Word] = []
    for word in (percent, in_json, _literal(short), _literal(others), _literal(encoded)):
        # What two words say alike would be tried twice: with many such characters, for as good as ever.
        if not any(_covers(known, word) for known in words):
            words.append(word)
    return tuple(words)


def _covers(one: _Word, other: _Word) -> bool:
    """Say whether all that the other word says is said by this one, too."""
    return len(one) == len(other) and all(set(part) <= set(whole) for whole, part in zip(one, other, strict=True))


def _hexadecimal(digits: str) -> tuple[bytes, ...]:
    return tuple("".join(dict.fromkeys((digit, digit.upper()))).encode() for digit in digits)


def _literal(text: bytes) -> _Word:
    return tuple(bytes((each,)) for each in text)


def _in_base64(value: bytes, before: int, alphabet: bytes) -> Iterator[Form]:
    """Yield the forms of base64 of a value that stands behind so many bytes (modulo 3), and before any number.

    The first and the last character hold bits of what stands beside it as well, so each may be one of several.
    """
    bits = "?" * (8 * before) + "".join(f"{each:08b}" for each in value)
    characters = [
        _fitting(bits[start : start + 6].ljust(6, "?"), alphabet) for start in range(8 * before // 6 * 6, len(bits), 6)
    ]
    known = [index for index, choices in enumerate(characters) if len(choices) == 1]
    piece = min(len(known) // 2, _PIECE)
    for first in (known[0], known[0] + piece):
        places: list[_Place] = []
        for index, choices in enumerate(characters):
            unbroken = first <= index < first + piece - 1
            places += [((choices,),)] if unbroken else [((choices,),), _LINE_END]
        yield Form((*places[:-1], _PADDING), b"".join(characters[first : first + piece]))


@cache
def _fitting(bits: str, alphabet: bytes) -> bytes:
    """Return the characters of an alphabet that have these bits; `?` is any."""
    return bytes(
        character
        for number, character in enumerate(alphabet)
        if all(known in {"?", bit} for bit, known in zip(f"{number:06b}", bits, strict=True))
    )


def _openings(places: tuple[_Place, ...], length: int) -> Iterator[bytes]:
    if length == 0 or not places:
        yield b""
        return
    for word in places[0]:
        seen = word[:length]
        for rest in _openings(places[1:], length - len(seen)):
            for choice in product(*seen):
                yield bytes(choice) + rest


def _expression(place: _Place) -> bytes:
    words = [b"".join(_any_of(choices) for choices in word) for word in place]
    return words[0] if len(words) == 1 else b"(?:%s)" % b"|".join(words)


def _any_of(choices: bytes) -> bytes:
    return re.escape(choices) if len(choices) == 1 else b"[%s]" % re.escape(choices)
