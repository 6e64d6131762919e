"""Real paths: where what has been opened lies, by the kernel's word, whatever name it was opened by."""

import os
from collections.abc import Callable
from pathlib import Path

#: Raises `errors.NotGranted` where the policy does not grant what really lies at a path, by whatever name it was asked
#: for: which entry that is about is not to be had from the words of a path that has a link in it.
RequireReal = Callable[[str], None]
#: What the kernel shows behind a path that leads there no more.
_REMOVED = " (deleted)"


def path(descriptor: int) -> str:
    """Return the path of what is open, without links; of what was removed or replaced since, the one that it had."""
    shown = str(Path(f"/proc/self/fd/{descriptor}").readlink())
    if not shown.endswith(_REMOVED) or _is_there(shown, descriptor):
        return shown
    return shown.removesuffix(_REMOVED)


def _is_there(shown: str, descriptor: int) -> bool:
    """Say whether something really bears that name: one may end so."""
    try:
        return os.path.samestat(os.lstat(shown), os.fstat(descriptor))
    except OSError:
        return False
