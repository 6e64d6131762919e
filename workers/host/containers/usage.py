"""Usage: what containers use, reckoned from two of the Engine's samples as `docker stats` does."""

from collections.abc import Iterable, Mapping
from typing import Any

from fleet import errors
from fleet.contracts.container_output import Usage
from workers.host.containers import calls
from workers.host.containers.engine import Engine

#: One sample, and at once. An Engine of an API before 1.41 does not know the second wish, and takes two seconds.
_ONE = {"stream": "false", "one-shot": "true"}

Sample = Mapping[str, Any]


def samples(engine: Engine, docker_ids: Iterable[str]) -> dict[str, Sample]:
    """Return a sample of each container that is there; raises `errors.EngineUnavailable`."""
    found = {}
    for docker_id in docker_ids:
        try:
            sample = engine.ask("GET", f"/containers/{calls.part(docker_id)}/stats", parameters=_ONE)
        except errors.EngineRefused as exc:
            if exc.kind != "no_such_container":
                raise
        else:
            if sample:  # an empty answer: it went while the Engine made its sample (moby, daemon/stats.go)
                found[docker_id] = sample
    return found


def between(before: Sample, after: Sample) -> Usage:
    """Return what a container used between two samples of it, and has used by the later one."""
    memory = after.get("memory_stats") or {}
    networks = (after.get("networks") or {}).values()
    return Usage(
        docker_id=str(after.get("id") or ""),
        name=str(after.get("name") or "").removeprefix("/"),
        cpu_percent=_cpu(before.get("cpu_stats") or {}, after.get("cpu_stats") or {}),
        memory_bytes=_memory(memory),
        memory_limit_bytes=memory.get("limit"),
        network_in_bytes=sum(network.get("rx_bytes", 0) for network in networks) if networks else None,
        network_out_bytes=sum(network.get("tx_bytes", 0) for network in networks) if networks else None,
        block_read_bytes=_blocks(after, "read"),
        block_written_bytes=_blocks(after, "write"),
        pids=(after.get("pids_stats") or {}).get("current"),
    )


def _cpu(before: Mapping[str, Any], after: Mapping[str, Any]) -> float | None:
    """Return the share of one processor, in percent: its time by that of the machine, times how many it has."""
    busy = _difference(before.get("cpu_usage") or {}, after.get("cpu_usage") or {}, "total_usage")
    passed = _difference(before, after, "system_cpu_usage")
    if busy is None or not passed:
        return None
    count = after.get("online_cpus") or len((after.get("cpu_usage") or {}).get("percpu_usage") or ()) or 1
    return round(max(0.0, busy / passed * count * 100), 2)


def _difference(before: Mapping[str, Any], after: Mapping[str, Any], key: str) -> int | None:
    return after[key] - before[key] if key in before and key in after else None


def _memory(memory: Mapping[str, Any]) -> int | None:
    """Return the memory in use without the file cache that the kernel can drop (cgroup 1 and 2 name it differently)."""
    if "usage" not in memory:
        return None
    stats = memory.get("stats") or {}
    droppable = stats.get("total_inactive_file", stats.get("inactive_file", 0))
    return max(0, int(memory["usage"]) - int(droppable))


def _blocks(sample: Sample, operation: str) -> int | None:
    entries = (sample.get("blkio_stats") or {}).get("io_service_bytes_recursive")
    if entries is None:
        return None
    return sum(int(entry["value"]) for entry in entries if str(entry.get("op")).lower() == operation)
