"""Exposition: numbers in the form that Prometheus reads, and never more of them than a page can hold.

The values of a label may come from anybody who pushes. So a label that is not one of a few words of ours is capped:
what is beyond the cap is counted under another name, or left out and counted.
"""

from collections.abc import Callable, Iterable, Mapping
from threading import Lock
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from fleet.local.pages import Page

#: Contracts with series of their own; a fleet has some dozens.
MOST_CONTRACTS = 50
#: Under this name the others are counted together. No contract can be called so: a name has a dot in it.
OTHER = "other"


class _Found(Collector):
    def __init__(self, look: Callable[[], Iterable[Metric]]) -> None:
        self._look = look

    def describe(self) -> Iterable[Metric]:
        """Name no metrics beforehand: that would be a look at what may not be there yet."""
        return ()

    def collect(self) -> Iterable[Metric]:
        return self._look()


def page(look: Callable[[], Iterable[Metric]]) -> Callable[[], Page]:
    """Return a page of what `look` finds whenever it is asked for; never two looks at once."""
    registry, turn = CollectorRegistry(), Lock()
    registry.register(_Found(look))

    def make() -> Page:
        with turn:
            return Page(body=generate_latest(registry), content_type=CONTENT_TYPE_LATEST)

    return make


def gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value=float(value))


def labeled(name: str, text: str, labels: tuple[str, ...], values: Mapping[Any, float]) -> Metric:
    """Return a metric with labels; each key is a tuple with a value for each of them."""
    family = GaugeMetricFamily(name, text, labels=list(labels))
    for key, value in sorted(values.items()):
        family.add_metric(key, float(value))
    return family


def by_contract(counts: Mapping[tuple[str, str], float], *, known: Iterable[str]) -> dict[tuple[str, str], float]:
    """Return counts by (contract, state), with series for those that are `known` and the most used of the others."""
    sizes: dict[str, float] = {}
    for (task, _), count in counts.items():
        sizes[task] = sizes.get(task, 0) + count
    kept = set(known) & set(sizes)
    room = max(0, MOST_CONTRACTS - len(kept))
    kept |= set(sorted(set(sizes) - kept, key=lambda task: (-sizes[task], task))[:room])
    found: dict[tuple[str, str], float] = {}
    for (task, state), count in counts.items():
        key = (task if task in kept else OTHER, state)
        found[key] = found.get(key, 0) + count
    return found
