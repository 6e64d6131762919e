"""Tables of the control plane's database, one noun each."""

from fleet.models.approval import Approval, ApprovalState
from fleet.models.audit import AuditEvent
from fleet.models.bearer import BearerToken
from fleet.models.container import ContainerRecord
from fleet.models.enrollment import EnrollmentToken
from fleet.models.host import Host, Membership
from fleet.models.key import FleetKey
from fleet.models.policy import PolicyVersion
from fleet.models.principal import Principal
from fleet.models.report import ReportCursor
from fleet.models.run import Attempt, Run, RunState
from fleet.models.secret import Secret
from fleet.models.session import ShellSession

__all__ = [
    "Approval",
    "ApprovalState",
    "Attempt",
    "AuditEvent",
    "BearerToken",
    "ContainerRecord",
    "EnrollmentToken",
    "FleetKey",
    "Host",
    "Membership",
    "PolicyVersion",
    "Principal",
    "ReportCursor",
    "Run",
    "RunState",
    "Secret",
    "ShellSession",
]
