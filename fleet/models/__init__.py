"""Tables of the control plane's database, one noun each."""

from fleet.models.audit import AuditEvent
from fleet.models.container import ContainerRecord
from fleet.models.enrollment import EnrollmentToken
from fleet.models.host import Host, Membership
from fleet.models.key import FleetKey
from fleet.models.principal import Principal
from fleet.models.report import ReportCursor
from fleet.models.run import Attempt, Run, RunState
from fleet.models.secret import Secret

__all__ = [
    "Attempt",
    "AuditEvent",
    "ContainerRecord",
    "EnrollmentToken",
    "FleetKey",
    "Host",
    "Membership",
    "Principal",
    "ReportCursor",
    "Run",
    "RunState",
    "Secret",
]
