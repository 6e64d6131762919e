"""Masking: known secrets are replaced by `***` in text and in streams, whatever usual form they have there.

Found are the forms that `fleet.spellings` knows. Compressed, reversed, encrypted or spread over other text a secret is
not found: masking keeps accidents out of records, and is no defense against a program that wants to tell.

A stream gives the same however it is cut into pieces, and however long it pauses between them: what may be the
beginning of a secret is kept back until more has come, never more than the longest form. While much comes, its first
bytes decide what may be one; when nothing comes for a while, all of it does (`settle`), and the rest is let go of.

To look for the anchors of all forms is fifty times faster than an expression for them, which is made only once
something was found: most output holds no secret.
"""

import re
from collections.abc import Callable, Iterable
from functools import cached_property

from fleet import spellings
from fleet.spellings import Form

MASK = b"***"
#: Bytes of a value; one that is shorter stands in too much that has nothing to do with it.
SHORTEST = 6

#: Characters that stand before an encoder's line end at least.
_SHORTEST_LINE = 60
_ENCODERS_LINE_END = re.compile(rb"(?<=[A-Za-z0-9+/_-]{%d})[\r\n]" % _SHORTEST_LINE)
#: First bytes by which it is seen whether a form may begin.
_LOOKED_AT = 3


class Masker:
    """Masks one set of secrets. For a stream see `stream`."""

    def __init__(self, secrets: Iterable[str | bytes]) -> None:
        """Take values; white space around one is no part of it, and shorter ones than `SHORTEST` are left out."""
        values = {(value.encode() if isinstance(value, str) else value).strip() for value in secrets}
        # The longest first: a secret that begins like another must not leave its end behind.
        ordered = sorted((value for value in values if len(value) >= SHORTEST), key=lambda value: (-len(value), value))
        self._forms = tuple(dict.fromkeys(form for value in ordered for form in spellings.of(value)))
        #: bytes of the longest form
        self.longest = max((form.longest for form in self._forms), default=0)
        self._expressions: dict[tuple[Form, ...], re.Pattern[bytes]] = {}

    def __bool__(self) -> bool:
        return bool(self._forms)

    def text(self, value: str) -> str:
        """Return a text with every secret masked."""
        return self.mask(value.encode("utf-8", "surrogatepass")).decode("utf-8", "surrogatepass")

    def mask(self, value: bytes) -> bytes:
        """Return bytes with every secret masked."""
        found = self.finder(value)
        return found.sub(MASK, value) if found else value

    def stream(self) -> "Masking":
        """Return what masks one stream, piece by piece."""
        return Masking(self)

    def finder(self, text: bytes) -> "re.Pattern[bytes] | None":
        """Return an expression for the forms that may stand in a text; None where none does."""
        there = tuple(form for form in self._forms if form.anchor in text)
        if not there:
            return None
        if there not in self._expressions:
            self._expressions[there] = re.compile(b"|".join(form.expression for form in there))
        return self._expressions[there]

    def may_begin(self, text: bytes, start: int) -> int:
        """Return the first place from `start` on where a form may begin; the end where none may."""
        openings = self._openings
        return next(
            (place for place in range(start, len(text)) if text[place : place + _LOOKED_AT] in openings), len(text)
        )

    def begun(self, text: bytes, *, before: bytes) -> list[int]:
        """Return all places from which on a text may be the beginning of a form, to its end; `before` it stood that."""
        whole = before + text
        line_ends = {found.start() - len(before) for found in _ENCODERS_LINE_END.finditer(whole)}
        places, place = [], 0
        while (place := self.may_begin(text, place)) < len(text):
            forms = self._openings[text[place : place + _LOOKED_AT]]
            if any(form.may_go_on(text, place, line_ends) for form in forms):
                places.append(place)
            place += 1
        return places

    @cached_property
    def _openings(self) -> dict[bytes, tuple[Form, ...]]:
        """The first bytes of all forms, and all beginnings of those, for the end of a text; with the forms."""
        found: dict[bytes, dict[Form, None]] = {}
        for form in self._forms:
            for opening in form.openings(_LOOKED_AT):
                for length in range(1, len(opening) + 1):
                    found.setdefault(opening[:length], {})[form] = None
        return {opening: tuple(forms) for opening, forms in found.items()}


class Masking:
    """One stream on its way through a masker."""

    def __init__(self, masker: Masker) -> None:
        self._masker = masker
        self._kept = b""
        #: what stood before that, as much of it as a line has to hold
        self._before = b""

    def feed(self, data: bytes) -> bytes:
        """Take the next piece; return what is certain by now."""
        if not self._masker:
            return data
        text = self._kept + data
        # What begins here or later may go on beyond what has come.
        open_from = max(0, len(text) - self._masker.longest + 1)
        return self._pass(
            text,
            open_from=lambda _place: open_from,
            keeps_from=lambda place: self._masker.may_begin(text, max(place, open_from)),
        )

    def settle(self) -> bytes:
        """Return what is kept back and begins no secret, because nothing has come for a while.

        What is kept is often no more than the end of a line whose last letters could begin one; whoever reads along
        waits for it. What may go on to be a secret is kept on, however long it takes: its lines may come one by one.
        """
        text = self._kept
        begun = self._masker.begun(text, before=self._before) if text else []

        def open_from(place: int) -> int:
            return next((start for start in begun if start >= place), len(text))

        return self._pass(text, open_from=open_from, keeps_from=open_from)

    def flush(self) -> bytes:
        """Return the rest, at the end."""
        text = self._kept
        return self._pass(text, open_from=lambda _place: len(text), keeps_from=lambda _place: len(text))

    def _pass(self, text: bytes, *, open_from: Callable[[int], int], keeps_from: Callable[[int], int]) -> bytes:
        """Mask what begins before `open_from`, pass on all before `keeps_from`; both get where the last mask ends."""
        found = self._masker.finder(text)
        done, place = [], 0
        for match in found.finditer(text) if found else ():
            if match.start() >= open_from(place):
                break
            done += [text[place : match.start()], MASK]
            place = match.end()
        keeps = keeps_from(place)
        done.append(text[place:keeps])
        self._kept = text[keeps:]
        self._before = (self._before + text[max(0, keeps - _SHORTEST_LINE) : keeps])[-_SHORTEST_LINE:]
        return b"".join(done)


def mask_text(value: str, secrets: Iterable[str | bytes]) -> str:
    """Return a text with these secrets masked."""
    return Masker(secrets).text(value)
