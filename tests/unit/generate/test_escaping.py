"""Whatever a value is, its file's format reads exactly that, as one value."""

import jinja2
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from fleet.generate import escaping

LINES = st.text(st.characters(min_codepoint=32, max_codepoint=0x2FF, exclude_categories=["Cc", "Cf", "Zl", "Zp", "Cs"]))
VICIOUS = ["", "a b", 'say "hello"', "it's", "50 %h", "${HOME} $$ $(id)", "back\\slash\\", "#no: [remark]", "- x", "%%"]


def of_systemd(text: str) -> str:
    """Read one quoted word as systemd does: escapes, then specifiers, of which only `%%` is known here."""
    assert text[0] == text[-1] == '"'
    found, rest = [], iter(text[1:-1])
    for character in rest:
        assert character != '"'
        found.append(next(rest) if character == "\\" else character)
    return _halved("".join(found), "%")


def _halved(text: str, character: str) -> str:
    found, rest = [], iter(text)
    for each in rest:
        if each == character:
            assert next(rest) == character, f"a single {character}"
        found.append(each)
    return "".join(found)


@given(LINES)
def test_compose(value: str) -> None:
    read = yaml.safe_load(f"key: {escaping.compose(value)}")
    assert _halved(read["key"], "$") == value


@given(LINES.filter(str.isprintable))
def test_units(value: str) -> None:
    assert of_systemd(escaping.unit(value)) == value


@given(LINES.filter(str.isprintable))
def test_dockerfiles(value: str) -> None:
    text = escaping.dockerfile(value)
    found, rest = [], iter(text[1:-1])
    for character in rest:
        assert character not in '"$'
        found.append(next(rest) if character == "\\" else character)
    assert "".join(found) == value


@pytest.mark.parametrize("value", VICIOUS)
def test_vicious_values(value: str) -> None:
    assert _halved(yaml.safe_load(escaping.compose(value)), "$") == value
    assert of_systemd(escaping.unit(value)) == value


@pytest.mark.parametrize("escape", [escaping.dockerfile, escaping.unit, escaping.remark])
@pytest.mark.parametrize("value", ["a\nb", "a\rb", "\x1b[31m", "\u2028"])
def test_a_line_that_would_be_two_is_refused(escape: "object", value: str) -> None:
    with pytest.raises(ValueError, match="control characters"):
        escape(value)  # type: ignore[operator]


@pytest.mark.parametrize("value", ["a b", "a;b", "$a", "a#b", 'a"b', "a\nb"])
def test_what_is_put_in_plain_has_to_be_plain(value: str) -> None:
    with pytest.raises(ValueError, match="not plain"):
        escaping.plain(value)
    assert escaping.plain("psycopg-binary==3.2.1") == "psycopg-binary==3.2.1"


def test_nothing_gets_into_a_template_unescaped() -> None:
    environment = jinja2.Environment(finalize=escaping.only_escaped, undefined=jinja2.StrictUndefined)
    environment.filters.update(escaping.FILTERS)
    assert environment.from_string("{{ name | unit }}").render(name="x") == '"x"'
    with pytest.raises(TypeError, match="unescaped"):
        environment.from_string("{{ name }}").render(name="x")
    with pytest.raises(jinja2.UndefinedError):
        environment.from_string("{{ nothing | unit }}").render()
