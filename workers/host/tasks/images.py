"""Tasks about images."""

from typing import Any

from fleet.contracts import RunContext
from fleet.contracts.images import ImagePulled, ImageRemoved, Images, ListImages, PullImage, RemoveImage
from workers.host.containers import images
from workers.host.containers.engine import Engine
from workers.host.streams import StreamedRun


class ImageTasks:
    """The image contracts on one Engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def list(self, _request: ListImages, _run: RunContext) -> Images:
        return Images(images=images.everything(self._engine))

    def pull(self, request: PullImage, run: StreamedRun) -> ImagePulled:
        run.progress("pulling", 0)
        return images.pull(self._engine, request.image, run=run, platform=request.platform)

    def remove(self, request: RemoveImage, _run: RunContext) -> ImageRemoved:
        return images.remove(self._engine, request.image, force=request.force)

    def removed(self, request: RemoveImage, **_told: Any) -> ImageRemoved | None:
        """Return the reply where the image is gone; None where it still has to be removed."""
        if images.find(self._engine, request.image) is None:
            return ImageRemoved(untagged=(request.image,))
        return None
