"""Remarks: what in a policy is allowed, and wider than it looks.

A program that runs others is as wide as the arguments that it may be given: `env`, `find` and `git` with a word of the
caller's choice are a shell. Nothing here decides; `fleet policy check` says it.
"""

import posixpath
import re

from fleet.contracts.registry import RESERVED_PREFIX, known
from fleet.contracts.verdicts import Decision
from fleet.policy.entries import Command, FileGrant
from fleet.policy.fleets import FleetPolicy
from fleet.policy.host import HostPolicy
from fleet.policy.patterns import AnyContainer, Exactly, OneOf, Whole, lies_below
from fleet.policy.rules import Rule

#: Programs that run others by their arguments, by what they read, or by files that they are pointed at. Those that
#: gtfobins.github.io lists under "Shell", "Command" and "Library load", as far as hosts have them.
_RUNNERS = re.compile(
    r"(ba|da|z|k|mk|c|tc|fi|a|pdk)?sh|rbash|busybox|toybox|env|xargs|parallel|nice|ionice|nohup|timeout|setsid|stdbuf|chrt"
    r"|taskset|flock|watch|time|script|sudo|su|doas|runuser|setpriv|capsh|pkexec|newgrp|sg|chroot|unshare|nsenter|ip|bwrap"
    r"|strace|ltrace|gdb|perf|valgrind|ld(-[a-z0-9-]*)?\.so(\.\d+)?|ld-linux.*"
    r"|find|fd|locate|tar|bsdtar|cpio|zip|unzip|7z|rsync|scp|sftp|ssh|sshpass|rsh|telnet|ftp|nc|ncat|socat|curl|wget|openssl"
    r"|sed|[gmn]?awk|split|sort|tee|dd|ed|ex|r?vim?|view|vimdiff|nvim|nano|pico|emacs|less|more|most|man|info|pg"
    r"|python[0-9.]*|pypy[0-9.]*|perl[0-9.]*|ruby[0-9.]*|node(js)?|deno|bun|php[0-9.]*|lua[0-9.]*|tclsh.*|expect|guile|java|R"
    r"|make|gmake|cmake|ninja|gcc|cc|g\+\+|c99|go|cargo|npm|npx|yarn|pip[0-9.]*|pipx|uv|gem|bundle|composer|mvn|gradle"
    r"|git|hg|svn|docker|podman|nerdctl|ctr|kubectl|helm|crictl|ansible.*|terraform|puppet|salt.*|aws|virsh|lxc|lxd"
    r"|apt|apt-get|aptitude|dpkg|yum|dnf|rpm|apk|pacman|snap|flatpak|systemd-run|systemctl|journalctl|loginctl|machinectl"
    r"|busctl|at|batch|crontab|run-parts|start-stop-daemon|service|logrotate|logsave|mount|umount|modprobe|insmod|sysctl"
    r"|tcpdump|nmap|mysql|psql|sqlite3|redis-cli|screen|tmux|byobu|dialog|whiptail|install|cp|mv|ln|tcpserver|iptables.*"
)
#: With these a container's name is no program, where it does not stand in the place of the command.
_ENGINES = frozenset({"docker", "podman", "nerdctl"})
#: Who may write there can become root, or undo what the host's owner has said.
_GRAVE = ("/etc", "/usr", "/bin", "/sbin", "/lib", "/lib64", "/boot", "/root", "/proc", "/sys", "/dev", "/run", "/var")


def remarks(policy: FleetPolicy | HostPolicy) -> tuple[str, ...]:
    """Return what somebody should look at twice, a sentence each."""
    found = [said for command in policy.commands or () if (said := _about_command(command))]
    found += [said for grant in policy.files or () if (said := _about_files(grant))]
    found += [said for rule in policy.rules for said in _about_rule(rule)]
    return tuple(found)


def _about_command(command: Command) -> str:
    name = posixpath.basename(command.program)
    if command.decision is Decision.DENY or not _RUNNERS.fullmatch(name):
        return ""
    for index, pattern in enumerate(command.argv):
        harmless = isinstance(pattern, Exactly | OneOf | Whole)
        if not harmless and not (name in _ENGINES and index > 1 and isinstance(pattern, AnyContainer)):
            return (
                f'command "{command.name}": {name} can run other programs or write files, and argument {index} is for '
                "the caller to choose; write it out, or list the texts that it may be"
            )
    return ""


def _about_files(grant: FileGrant) -> str:
    if "put" not in grant.may or grant.decision is Decision.DENY:
        return ""
    grave = next((each for each in _GRAVE if lies_below(grant.root, each) or lies_below(each, grant.root)), "")
    return f'files "{grant.name}": whoever may write below {grant.root} may write {grave} or in it' if grave else ""


def _about_rule(rule: Rule) -> list[str]:
    found = []
    narrows = rule.levels or rule.risks or rule.labels or rule.principals or rule.tasks or rule.commands
    if rule.decision is Decision.ALLOW and not narrows:
        found.append(f'rule "{rule.name}": allows every task to everybody, and whatever is listed')
    found += [
        f'rule "{rule.name}": there is no task {task!r} of Fleet\'s'
        for task in rule.tasks or ()
        if task.startswith(RESERVED_PREFIX) and task not in known()
    ]
    return found
