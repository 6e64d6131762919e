"""The table: what `python -m tests.chaos` leaves for people and for programs."""

import json
import os
import platform
import statistics
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from tests.chaos.fault import Fault
from tests.chaos.tally import Tally

_ROOT = Path(__file__).parents[2]
_PAGES = (_ROOT / "docs" / "chaos.md", _ROOT / "README.md")
_BEGIN, _END = "<!-- chaos: begin -->", "<!-- chaos: end -->"

#: What was counted, by the fault's number and "fleet" or "stock".
Rows = dict[int, dict[str, Tally]]


def _numbers(tally: Tally | None, why_not: str) -> str:
    if tally is None:
        return f"| *n/a: {why_not}* | | | | "
    times = f"{statistics.median(tally.recovered):.1f} / {max(tally.recovered):.1f}" if tally.recovered else "never"
    lost = f"**{tally.lost}**" if tally.lost else "0"
    twice = f"**{tally.duplicated}**" if tally.duplicated else "0"
    return f"| {tally.attempted:,} | {lost} | {twice} | {tally.unknown} | {times} "


def markdown(faults: Sequence[Fault], rows: Rows) -> str:
    """Return the table: fault × attempted, lost, run twice, unknown, seconds to recover, for both."""
    lines = [
        "| # | fault | Fleet: runs | lost | twice | unknown | back, s | stock: runs | lost | twice | – | back, s |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for fault in faults:
        if fault.number in rows:
            mine = _numbers(rows[fault.number].get("fleet"), "")
            its = _numbers(rows[fault.number].get("stock"), fault.why_not)
            lines.append(f"| {fault.number} | {fault.name} {mine}{its}|")
    return "\n".join(lines)


def conditions() -> str:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores, {memory:.0f} GiB, Linux {platform.release()}, "
        f"Python {platform.python_version()}, Valkey from the wheel with `appendfsync everysec`"
    )


def save(directory: Path, fault: int, who: str, tally: Tally) -> None:
    """Keep what was counted in a file of its own."""
    directory.mkdir(parents=True, exist_ok=True)
    kept = {"conditions": conditions(), "tally": asdict(tally)}
    (directory / f"{fault:02}-{who}.json").write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")


def load(directory: Path) -> Rows:
    """Return what was kept."""
    rows: dict[int, dict[str, Tally]] = {}
    for path in sorted(directory.glob("*.json")):
        number, who = path.stem.split("-")
        rows.setdefault(int(number), {})[who] = Tally(**json.loads(path.read_text(encoding="utf-8"))["tally"])
    return rows


def write(faults: Sequence[Fault], rows: Rows) -> None:
    """Write the table between its marks into every page that has them."""
    table = f"{_BEGIN}\n{conditions()}\n\n{markdown(faults, rows)}\n{_END}"
    for page in _PAGES:
        before, _, rest = page.read_text(encoding="utf-8").partition(_BEGIN)
        _, _, after = rest.partition(_END)
        page.write_text(before + table + after, encoding="utf-8")
