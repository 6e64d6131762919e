"""Contracts: the wire, declared once. What may be pushed, what comes back, what hosts and callers report."""

from fleet.contracts.contract import (
    AnyContract,
    Contract,
    Performer,
    Reply,
    Request,
    Restart,
    Risk,
    RunContext,
)

__all__ = ["AnyContract", "Contract", "Performer", "Reply", "Request", "Restart", "Risk", "RunContext"]
