"""`fleet doctor`: everything Fleet needs, checked one by one."""

from typing import TYPE_CHECKING, Any

import click

from fleet.cli import invocation, progress, render, tables
from fleet.cli.grammar import Command

if TYPE_CHECKING:
    from fleet.cli.checks import Finding


@click.command("doctor", cls=Command, examples=("fleet doctor", "fleet doctor -o json"))
@click.pass_context
def command(ctx: click.Context) -> None:
    """Check everything Fleet needs, and say what to do.

    Broker, control plane, hosts, clocks, database, Docker Engine, Flower and the state directory, as seen from this
    machine. The exit code is 1 when any check fails; warnings leave it at 0.
    """
    from fleet import errors
    from fleet.cli import checks, membership_checks

    findings: list[Finding] = []
    with progress.bar("checking") as advance:
        try:
            settings = invocation.current().settings()
        except errors.SettingsInvalid as exc:
            # Nothing else can be looked at: where anything lies stands in the settings.
            findings.append(checks.Finding("settings", "fail", exc.message, exc.remedy))
        else:
            for check in (*checks.ALL, *membership_checks.ALL):
                findings.extend(check(settings))
                advance("checking")
    failed = any(finding.level == "fail" for finding in findings)
    records = [_record(finding) for finding in findings]
    whole = {"ok": not failed, "checks": records}
    render.compound(whole, parts=records, key="check", people=lambda: _tell(findings))
    ctx.exit(1 if failed else 0)


def _tell(findings: "list[Finding]") -> None:
    from rich.table import Table

    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for finding in findings:
        level = tables.styled(finding.level, tables.STYLES[finding.level])
        table.add_row(level, tables.styled(finding.check), tables.styled(finding.text))
        if finding.remedy:
            table.add_row("", "", tables.styled(f"→ {finding.remedy}"))
    tables.print_table(table)
    counts = [sum(finding.level == level for finding in findings) for level in ("ok", "warn", "fail")]
    render.say("{} ok, {} warnings, {} failed".format(*counts))


def _record(finding: "Finding") -> dict[str, Any]:
    return {"check": finding.check, "level": finding.level, "finding": finding.text, "remedy": finding.remedy}
