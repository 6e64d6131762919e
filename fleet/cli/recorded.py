"""Recorded sessions: commands and file operations as `fleet audit` lists and shows them."""

import shlex
from typing import Any

from fleet.cli import tables, when
from fleet.cli.tables import Column, Record

_WIDE = 120


def _decided(record: Record) -> str:
    """Return the policy's word, and who approved."""
    by = f" by {record['approved_by']}" if record["approved_by"] else ""
    return f"{record['decision']}{by}"


def _exit(record: Record) -> object:
    """Return the exit code of a command; else the word for how it ended, and nothing for one that goes on."""
    return record["outcome"] if record["exit_code"] is None else record["exit_code"]


def _took(record: Record) -> str | None:
    return None if record["duration_seconds"] is None else when.span(record["duration_seconds"])


COLUMNS = (
    Column(
        heading="TIME", value=lambda record: f"{record['asked_at'].astimezone():%Y-%m-%d %H:%M:%S}", from_width=_WIDE
    ),
    Column(heading="AGE", value=lambda record: when.age(record["asked_at"]), right=True, to_width=_WIDE),
    Column(heading="RUN", value=lambda record: record["id"][-12:]),
    Column(heading="HOST", value=lambda record: record["host"], shrinks=True),
    Column(heading="PRINCIPAL", value=lambda record: record["principal"], shrinks=True, to_width=_WIDE),
    Column(
        heading="PRINCIPAL",
        value=lambda record: f"{record['principal']} ({record['level']})",
        shrinks=True,
        from_width=_WIDE,
    ),
    Column(heading="COMMAND", value=lambda record: shlex.join(record["argv"]), shrinks=True),
    Column(heading="DECISION", value=_decided, shrinks=True),
    Column(heading="EXIT", value=_exit, right=True),
    Column(heading="TOOK", value=_took, right=True),
)


def _run_as(record: Record) -> list[tuple[str, Any]]:
    """Return what ran, where that is more or something else than what was asked for."""
    if record["run_as"] is None:
        return []
    ran = record["run_as"]
    return [
        ("Program", ran["program"]),
        *([("As", list(ran["argv"]))] if ran["argv"] != list(record["argv"]) else []),
        *([("In", ran["cwd"])] if ran["cwd"] != record["cwd"] else []),
        *([("Variables", ", ".join(ran["env"]))] if ran["env"] else []),
    ]


def rows(record: Record) -> list[tuple[str, Any]]:
    """Return one session as labels and values for people; what it wrote is printed below (`tell_output`)."""
    return [
        ("Run", record["id"]),
        ("Host", record["host"]),
        ("Principal", f"{record['principal']} ({record['level']})"),
        ("Contract", record["task"]),
        ("Command", list(record["argv"])),
        ("Directory", record["cwd"]),
        *_run_as(record),
        ("Description", record["description"] or None),
        ("Risk", record["risk"]),
        ("Decision", f"{record['decision']} ({record['reason']})"),
        ("Rule", record["rule"]),
        ("Policy", f"version {record['policy']}" if record["policy"] else "none"),
        ("Approved by", record["approved_by"]),
        ("Asked", when.both(record["asked_at"])),
        ("Started", when.both(record["started_at"])),
        ("Finished", when.both(record["finished_at"])),
        ("Took", _took(record)),
        ("Outcome", record["outcome"] or "not ended"),
        ("Exit code", record["exit_code"]),
        ("Detail", record["detail"]),
        ("Wrote", f"{record['stdout_bytes']:,} bytes to stdout, {record['stderr_bytes']:,} to stderr"),
        ("SHA-256", record["stdout_sha256"]),
        ("SHA-256 stderr", record["stderr_sha256"]),
        ("Attempt", record["attempt"] if record["earlier"] else None),
        ("Before it", [_attempted(each) for each in record["earlier"]] or None),
    ]


def _attempted(ended: Record) -> str:
    how = ended["outcome"] if ended["exit_code"] is None else f"exit code {ended['exit_code']}"
    took = when.span(ended["duration_seconds"] or 0.0)
    return f"{ended['attempt']}: {how} after {took}, {ended['stdout_bytes']:,} bytes to stdout"


def tell_output(record: Record) -> None:
    """Print what a session wrote, as far as it is kept, below its detail."""
    out = tables.console()
    for name in ("stdout", "stderr"):
        if record[name]:
            cut = ", the middle is missing" if record["truncated"] else ""
            out.print(tables.styled(f"{name}{cut}:", "bold"), soft_wrap=True)
            for line in record[name].removesuffix("\n").split("\n"):
                out.print(tables.styled(f"  {line}"), soft_wrap=True)
