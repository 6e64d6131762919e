"""Layers of a pull: from what the Engine says of each, how far the whole is."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from fleet.contracts.images import Layer
from workers.host.containers.layers import _STATES, Layers


def say(layers: Layers, layer: str, status: str, current: Any = None, total: Any = None) -> bool:
    detail = {} if current is None else {"current": current, "total": total}
    return layers.hear({"id": layer, "status": status, "progressDetail": detail})


def test_before_anything_is_known_of_layers_nothing_is_done() -> None:
    layers = Layers()
    assert layers.percent == 0.0
    assert not layers.hear({"status": "Pulling from library/nginx", "id": "latest"})
    assert not layers.hear({"status": "Digest: sha256:…"})
    assert layers.all == ()


def test_a_layer_weighs_as_much_as_there_is_to_download_of_it() -> None:
    layers = Layers()
    assert say(layers, "small", "Pulling fs layer")
    say(layers, "large", "Pulling fs layer")
    say(layers, "small", "Downloading", 0, 100)
    say(layers, "large", "Downloading", 0, 900)
    assert layers.percent == 0.0
    assert say(layers, "small", "Download complete")
    assert layers.percent == 7.5  # three quarters of a tenth
    assert say(layers, "small", "Pull complete")
    assert layers.percent == 10.0
    say(layers, "large", "Downloading", 450, 900)
    assert layers.percent == 43.8  # half of three quarters of nine tenths more
    say(layers, "large", "Extracting", 900, 900)
    assert layers.percent == 100.0


def test_a_message_is_news_when_a_layer_changes_its_state() -> None:
    layers = Layers()
    assert say(layers, "a", "Downloading", 1, 10)
    assert not say(layers, "a", "Downloading", 2, 10)
    assert say(layers, "a", "Verifying Checksum")
    assert not say(layers, "a", "Download complete")
    assert say(layers, "a", "Extracting", 1, 10)
    assert layers.all == (Layer(id="a", state="extracting", current=1, total=10),)


def test_what_is_there_already_weighs_nothing() -> None:
    layers = Layers()
    for layer in "abc":
        say(layers, layer, "Already exists")
    assert layers.percent == 0.0
    say(layers, "d", "Downloading", 50, 100)
    assert layers.percent == 37.5
    layers.finish()
    assert layers.percent == 100.0


_EVENTS = st.fixed_dictionaries(
    {
        "id": st.sampled_from(["a", "b", "c", "", None, 7, "x" * 100]) | st.text(max_size=3),
        "status": st.sampled_from([*_STATES, "Pulling from x", "", None]),
    },
    optional={
        "progressDetail": st.none()
        | st.fixed_dictionaries(
            {},
            optional={
                "current": st.none() | st.integers(-5, 2**40) | st.text(max_size=2),
                "total": st.none() | st.integers(-5, 2**40),
            },
        )
    },
)


@given(st.lists(_EVENTS, max_size=60))
def test_whatever_an_engine_says_it_only_goes_on_between_nothing_and_all(events: list[dict[str, Any]]) -> None:
    layers, before = Layers(), 0.0
    for event in events:
        layers.hear(event)
        assert before <= layers.percent <= 100.0
        before = layers.percent


def test_an_engine_that_names_layers_without_end_is_not_followed() -> None:
    layers = Layers()
    for number in range(1000):
        say(layers, str(number), "Waiting")
    assert len(layers.all) == 127
