"""Run faults, print what became of the runs, and write the table of all that was counted."""

import argparse
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.chaos import table
from tests.chaos.fault import Fault, Scale
from tests.chaos.matrix import FAULTS
from tests.services.offered import PATH

#: Faults that wait for minutes; they run beside the others.
_LONG = frozenset({6, 9, 12, 13})


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--fault", type=int, action="append", help="only this one; may be repeated")
    parser.add_argument("--seed", type=int, help="only this seed")
    parser.add_argument("--short", action="store_true", help="a few seeds, on Fleet")
    parser.add_argument("--only", choices=["fleet", "stock"], help="only this subject")
    parser.add_argument("--results", type=Path, help="keep what was counted here, a file for each fault and subject")
    parser.add_argument("--write", action="store_true", help="write docs/chaos.md and README from what is in --results")
    given = parser.parse_args()
    chosen = [fault for fault in FAULTS if not given.fault or fault.number in given.fault]
    scale = Scale(short=given.short)
    if given.write:
        table.write(FAULTS, table.load(given.results))
        return 0
    rows: table.Rows = {fault.number: {} for fault in chosen}

    def do(job: tuple[Fault, str]) -> None:
        fault, who = job
        make = fault.fleet if who == "fleet" else fault.stock
        if make is None:
            return
        seeds = [given.seed] if given.seed is not None else list(range(1, scale.of(fault.seeds, fault.short_seeds) + 1))
        begun = time.monotonic()
        print(f"{fault.number:>2} {who}: {fault.name}; seeds {seeds[0]} to {seeds[-1]} …", flush=True)
        tally = make(seeds, scale)
        rows[fault.number][who] = tally
        if given.results:
            table.save(given.results, fault.number, who, tally)
        print(f"{fault.number:>2} {who}: {tally.summary()}  [{time.monotonic() - begun:.0f} s]", flush=True)
        for note in tally.notes:
            print(f"     {note}", flush=True)

    subjects = [given.only] if given.only else ["fleet"] if given.short else ["fleet", "stock"]
    jobs = [(fault, who) for who in subjects for fault in chosen]
    slow = [job for job in jobs if job[0].number in _LONG and not given.short]
    with ThreadPoolExecutor(1) as pool:
        beside = pool.submit(lambda: [do(job) for job in slow])
        for job in jobs:
            if job not in slow:
                do(job)
        beside.result()
    print(table.markdown(chosen, rows))
    return 0 if all(row["fleet"].clean for row in rows.values() if "fleet" in row) else 1


if __name__ == "__main__":
    sys.path.insert(0, str(PATH))
    sys.exit(main())
