"""Prefect's settings for a night that runs at once: quiet, embedded, without telemetry.

Imported before Prefect. What the environment sets already is left as it is, so
that a site's own server (``PREFECT_API_URL``) and log level win.
"""

from __future__ import annotations

import os

__all__ = ["apply_quiet_defaults"]

_DEFAULTS = {
    # No usage data leaves the machine.
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    # The embedded server needs up to 20 s for its first start (database migrations).
    "PREFECT_SERVER_EPHEMERAL_ENABLED": "true",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    # What goes wrong is told once, by the command; Prefect would add its own tracebacks.
    "PREFECT_LOGGING_LEVEL": "CRITICAL",
    "PREFECT_LOGGING_SERVER_LEVEL": "CRITICAL",
    "PREFECT_LOGGING_TO_API_ENABLED": "false",
}


def apply_quiet_defaults() -> None:
    """Set every default that the environment does not set."""
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)
