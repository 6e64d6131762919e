"""Fleet: run work on many Docker hosts through one message broker.

from fleet import Fleet
from fleet.tasks import restart_container

restart_container.on("edge-7").delay(container="web").get(timeout=30)
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fleet.client import Fleet

__all__ = ["Fleet"]


def __getattr__(name: str) -> Any:
    """Import the client when it is asked for: the CLI's `--help` must not wait for Celery."""
    if name == "Fleet":
        from fleet.client import Fleet

        return Fleet
    raise AttributeError(f"module 'fleet' has no attribute {name!r}")
