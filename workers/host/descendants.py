"""Descendants: ending the processes below this one, whatever they do against it, as far as the kernel lets it.

What has become another user's goes on under who is not root; it is named, and not waited for.
"""

import contextlib
import os
import signal

from workers.host import kernel


def end_descendants(*, but: frozenset[int] = frozenset()) -> tuple[int, ...]:
    """Kill all children, again and again: what they leave behind comes to their subreaper, to us.

    `but` are spared. Return those that go on, because they are another user's.
    """
    left: set[int] = set()
    while pids := [pid for pid in kernel.children() if pid not in but | left]:
        left |= {pid for pid in pids if not kill(pid)}
        for pid in pids:
            with contextlib.suppress(ChildProcessError):
                if os.waitpid(pid, os.WNOHANG if pid in left else 0)[0]:
                    left.discard(pid)  # it had ended before
    return tuple(sorted(left))


def kill(pid: int) -> bool:
    """Kill a process; return False where it is another user's, and lives or waits to be buried."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return True
