"""Arguments as people write them become what the contract takes, or an error that names the field."""

import io
import json
from pathlib import Path
from typing import Literal

import click
import pytest

from fleet import errors
from fleet.cli import arguments
from fleet.contracts import Contract, Reply, Request, Risk


class Many(Request):
    text: str
    count: int = 1
    ratio: float = 1.0
    flag: bool = False
    words: list[str] = []
    table: dict[str, int] = {}
    maybe: int | None = None
    level: Literal["low", "high"] = "low"


CONTRACT = Contract(
    name="test.many", summary="…", request=Many, reply=Reply, risk=Risk.READS, idempotent=True, perform="a:b"
)


def read(*pairs: str, document: str | None = None) -> dict[str, object]:
    split = [tuple(pair.split("=", 1)) for pair in pairs]
    return arguments.read(CONTRACT, pairs=split, document=document)  # type: ignore[arg-type]


def test_each_field_takes_what_it_looks_like() -> None:
    assert read("text=5", "count=5", "ratio=0.5", "flag=yes", 'table={"a": 1}', "maybe=null", "level=high") == {
        "text": "5",
        "count": 5,
        "ratio": 0.5,
        "flag": True,
        "table": {"a": 1},
        "maybe": None,
        "level": "high",
    }


def test_a_list_is_written_as_json_or_item_by_item() -> None:
    assert read("text=a", 'words=["df", "-h"]')["words"] == ["df", "-h"]
    assert read("text=a", "words=df", "words=-h")["words"] == ["df", "-h"]
    assert read("text=a", "words=df")["words"] == ["df"]


def test_text_stays_as_it_was_written() -> None:
    assert read('text=["a"]')["text"] == '["a"]'
    assert read("text=a=b")["text"] == "a=b"


@pytest.mark.parametrize(
    ("pair", "said"),
    [
        ("count=many", "count: 'many' is not a whole number"),
        ("flag=perhaps", "flag: 'perhaps' is not true or false"),
        ("table=x", "table: 'x' is not object in JSON"),
        ("count=1.5", "count: "),
        ("cuont=1", "cuont: "),
        ("level=middle", "level: "),
    ],
)
def test_a_wrong_argument_is_named_with_what_the_task_takes(pair: str, said: str) -> None:
    with pytest.raises(errors.InvalidArguments) as caught:
        read("text=a", pair)
    assert said in str(caught.value)
    assert "it takes text: str" in str(caught.value)


def test_an_argument_given_twice_is_refused() -> None:
    with pytest.raises(errors.InvalidArguments, match="count: given more than once"):
        read("text=a", "count=1", "count=2")


def test_a_document_is_read_from_a_file_or_standard_input_or_the_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = json.dumps({"text": "a", "count": 3})
    (tmp_path / "arguments.json").write_text(document)
    monkeypatch.setattr("sys.stdin", io.StringIO(document))
    expected = {"text": "a", "count": 3}
    assert read(document=f"@{tmp_path / 'arguments.json'}") == expected
    assert read(document="-") == expected
    assert read(document=document) == expected
    assert read("count=4", document=document) == {"text": "a", "count": 4}


@pytest.mark.parametrize("document", ["[1]", "{", "@/no/such/file", "3"])
def test_a_document_that_is_no_object_is_refused(document: str) -> None:
    with pytest.raises(click.UsageError, match="--json"):
        read(document=document)
