"""The matrix: all faults, in their order."""

from tests.chaos import faults_broker, faults_host, faults_plane, faults_processes

FAULTS = tuple(
    sorted(
        (*faults_processes.FAULTS, *faults_broker.FAULTS, *faults_host.FAULTS, *faults_plane.FAULTS),
        key=lambda fault: fault.number,
    )
)
