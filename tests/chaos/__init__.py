"""The fault matrix: what breaks, really breaks here, and every run is counted, on Fleet and on stock Celery.

    python -m tests.chaos                       all of it, about an hour; writes docs/chaos.md and docs/chaos.json
    python -m tests.chaos --short               each fault once or twice, on Fleet
    python -m tests.chaos --fault 2 --seed 17   one again

An effect is a line that the task itself appends to a file. The ledger is compared with those lines.
"""
