"""The control worker: the trusted side, which enrolls hosts and keeps the ledger."""
