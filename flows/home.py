"""The pull step of every deployment: to the folder of flows and catalogs on the machine of the run."""

from __future__ import annotations

import os

from gzscale.errors import ConfigError

__all__ = ["enter_home"]


def enter_home() -> dict[str, str]:
    """Go to the folder that ``GZSCALE_HOME`` names in the environment of the run.

    Prefect puts ``{{ $NAME }}`` of a deployment's pull steps in place on the machine that
    deploys: the path of a laptop would be stored, and looked for by every worker.

    Returns
    -------
    dict
        ``directory``, as Prefect's own ``set_working_directory`` returns it.

    Raises
    ------
    ConfigError
        If the environment names no folder.
    """
    home = os.environ.get("GZSCALE_HOME", "")
    if not os.path.isdir(home):
        raise ConfigError(
            f"GZSCALE_HOME is {home!r}, no folder on the machine of this run: set it, in the environment of "
            "Prefect's worker, to the folder that holds `flows` and `catalogs`"
        )
    os.chdir(home)
    return {"directory": os.getcwd()}
