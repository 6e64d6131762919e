"""Layers: how far the pull of an image is, from what the Engine says of each of its layers."""

from collections.abc import Mapping
from typing import Any

from fleet.contracts.images import Layer

#: What the Engine says of a layer (moby, distribution/xfer and pull_v2.go), and the state that it means. What it says
#: of the image as a whole has no entry here.
_STATES = {
    "Pulling fs layer": "waiting",
    "Waiting": "waiting",
    "Downloading": "downloading",
    "Verifying Checksum": "downloaded",
    "Download complete": "downloaded",
    "Extracting": "extracting",
    "Pull complete": "done",
    "Already exists": "there",
}
#: How much of the way a layer has behind it in each state; between two it is by bytes.
_BEHIND = {"waiting": 0.0, "downloading": 0.0, "downloaded": 0.75, "extracting": 0.75, "done": 1.0}
_AHEAD = {"downloading": 0.75, "extracting": 1.0}
#: More than the Engine lets an image have (moby, layer/layer.go).
_MOST = 127


class Layers:
    """The layers of one image while it is pulled, in the order in which the Engine names them."""

    def __init__(self) -> None:
        self._layers: dict[str, Layer] = {}
        #: sizes of downloads, where known: what has a size weighs as much
        self._sizes: dict[str, int] = {}
        self._percent = 0.0

    def hear(self, event: Mapping[str, Any]) -> bool:
        """Take in one of the Engine's messages; return whether a layer has changed its state by it."""
        layer_id, state = str(event.get("id") or "")[:64], _STATES.get(str(event.get("status")))
        before = self._layers.get(layer_id)
        if not layer_id or state is None or (before is None and len(self._layers) == _MOST):
            return False
        progress = event.get("progressDetail") or {}
        current, total = _count(progress.get("current")), _count(progress.get("total"))
        if state == "downloading" and total:
            self._sizes[layer_id] = total
        self._layers[layer_id] = Layer(id=layer_id, state=state, current=current, total=total)
        return before is None or before.state != state

    @property
    def all(self) -> tuple[Layer, ...]:
        return tuple(self._layers.values())

    def finish(self) -> None:
        """Take note that the Engine has said all."""
        self._percent = 100.0

    @property
    def percent(self) -> float:
        """How far it is, 0 to 100; it never goes back, also where another layer turns out to be large."""
        pulled = [layer for layer in self.all if layer.state != "there"]
        weights = {layer.id: self._sizes.get(layer.id, self._typical_size()) for layer in pulled}
        if whole := sum(weights.values()):
            done = sum(weights[layer.id] * _fraction(layer) for layer in pulled)
            self._percent = max(self._percent, round(100.0 * done / whole, 1))
        return self._percent

    def _typical_size(self) -> float:
        return sum(self._sizes.values()) / len(self._sizes) if self._sizes else 1.0


def _fraction(layer: Layer) -> float:
    behind = _BEHIND[layer.state]
    if layer.state not in _AHEAD or not layer.total or layer.current is None:
        return behind
    return behind + (_AHEAD[layer.state] - behind) * min(1.0, layer.current / layer.total)


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and value >= 0 else None
