"""The REST API: what the command line does, for programs that do not speak Python, over the same client code.

    request ─▶ callers (bearer token → principal) ─▶ access (scope, level) ─▶ routes ─▶ client | control plane
                                                                                └─▶ replies | problems

Every request is somebody's: what it pushes is signed by that principal's key, and judged by the host like any other
push. Nothing here is believed that a host would not believe. Errors are problems (RFC 9457) with Fleet's own codes.
"""
