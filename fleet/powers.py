"""Powers: what the fleet may do to a host by the worker that runs there, for whoever starts one.

Said at every start, because the owner of the host is the one who has to know. What is allowed to whom is the policies'
to say, and the host's to enforce; nothing is decided here.
"""

from dataclasses import asdict, dataclass
from typing import Any

from fleet import policy as policies
from fleet.settings import Settings


@dataclass(frozen=True, kw_only=True)
class Powers:
    """What a worker may do, as it was started."""

    #: where its Docker Engine is, which does whatever root may do
    docker: str
    #: whether commands and files are for the fleet's policy to say
    shell: bool
    #: version of the fleet's policy here, 0 for none, None where that is not known
    policy: int | None = None

    def fields(self) -> dict[str, Any]:
        """Return it for programs."""
        return {**asdict(self), "recorded": True}

    def text(self, host: str) -> str:
        """Return it for people, one paragraph."""
        return (
            f"What the fleet may do to {host} by this worker: containers, as its Docker Engine ({self.docker}) lets "
            f"it, which is as much as root may do, within the policy of the host's owner; {self._shell()} "
            "Everything that is asked for, refused or done is recorded in the fleet's audit."
        )

    def _shell(self) -> str:
        if not self.shell:
            return (
                "no commands and no files, which are switched off here whatever is pushed (--no-shell, or the owner's "
                "policy file)."
            )
        if self.policy == 0:
            return "no commands and no files for now: no policy of the fleet is here, so everything is denied."
        listed = f"version {self.policy} of the fleet's policy" if self.policy else "the fleet's policy"
        return f"commands and files that {listed} lists, and no others (--no-shell switches them off)."


def of(settings: Settings, *, policy: int | None = None) -> Powers:
    """Return what a worker with these settings may do, where that version of the fleet's policy is known.

    Raises `errors.SettingsInvalid` for a wrong policy of the host's owner.
    """
    shell = settings.shell and policies.of_host(settings).shell.enabled
    return Powers(docker=settings.resolved_docker_url, shell=shell, policy=policy)
