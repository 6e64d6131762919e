"""Policy documents: strict TOML, and every mistake in one named by its place.

A key that no policy has is a mistake: a rule that is misspelt and passed over would be a rule that does not hold.
"""

import tomllib
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError
from pydantic_core import ErrorDetails

from fleet import errors

SectionT = TypeVar("SectionT", bound="Section")

#: What people call an entry or a rule by.
Name = Annotated[str, StringConstraints(min_length=1, max_length=64)]


class Section(BaseModel):
    """A part of a policy: frozen, and strict about keys and types."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


def problems(model: type[SectionT], text: str, *, most_bytes: int) -> tuple[str, ...]:
    """Return every mistake in a document, each with its place; none where `read` takes it."""
    return _read(model, text, most_bytes=most_bytes)[1]


def read(model: type[SectionT], text: str, *, what: str, remedy: str, most_bytes: int) -> SectionT:
    """Read a document; raise `errors.SettingsInvalid` with every mistake where there are some."""
    found, wrong = _read(model, text, most_bytes=most_bytes)
    if found is None:
        raise errors.SettingsInvalid(f"{what}: {'; '.join(wrong)}", remedy=remedy)
    return found


def printable(value: str) -> str:
    """Check the name of an entry or a rule: it is shown to people, in a line of its own."""
    if not value.isprintable():
        raise ValueError("has characters that do not print")
    return value


def repeated(names: Sequence[str]) -> str:
    """Return a name that is there twice, empty where none is."""
    seen: set[str] = set()
    return next((name for name in names if name in seen or seen.add(name)), "")  # type: ignore[func-returns-value]


def _read(model: type[SectionT], text: str, *, most_bytes: int) -> tuple[SectionT | None, tuple[str, ...]]:
    if (size := len(text.encode(errors="surrogatepass"))) > most_bytes:
        return None, (f"has {size:,} bytes; {most_bytes:,} are the most",)
    try:
        content = tomllib.loads(text)
    except RecursionError:
        return None, ("is nested too deeply",)
    except ValueError as exc:  # a number of 5,000 digits is one, and no TOMLDecodeError
        return None, (f"is not TOML ({exc})",)
    try:
        return model.model_validate(content), ()
    except ValidationError as exc:
        return None, tuple(_explain(model, error) for error in exc.errors())


def _explain(model: type[BaseModel], error: ErrorDetails) -> str:
    place = ".".join(map(str, error["loc"]))
    if error["type"] == "missing":
        return f"{place}: is missing"
    if error["type"] == "extra_forbidden":
        *path, name = error["loc"]
        hint = errors.did_you_mean(str(name), list(_model_at(model, path).model_fields))
        return f"{place}: there is no such key{f', {hint}' if hint else ''}"
    said = error["msg"].removeprefix("Value error, ")
    if error["type"] == "tuple_type":
        said = "is a list, in brackets"
    return f"{place}: {said}" if place else said


def _model_at(model: type[BaseModel], path: Sequence[int | str]) -> type[BaseModel]:
    """Return the model of what lies at a path in a document, or the last one on the way there."""
    for step in path:
        fields: Mapping[str, Any] = model.model_fields
        if isinstance(step, str) and step in fields:
            model = _model_in(fields[step].annotation) or model
    return model


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and not get_args(annotation):
        return annotation if issubclass(annotation, BaseModel) else None
    return next((found for part in get_args(annotation) if (found := _model_in(part))), None)
