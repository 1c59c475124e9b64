"""What a task is: it turns the outputs of a network into columns with units."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from gzscale.catalog.schema import Column
from gzscale.errors import ConfigError
from gzscale.tasks.seen import Seen

__all__ = ["GROUP", "DistributionTask", "Ranked", "Seen", "Task", "load_task"]

#: Entry points of this group name tasks; another package can add its own.
GROUP = "gzscale.tasks"


@runtime_checkable
class Task(Protocol):
    """Pure arithmetic between a network's outputs and a table."""

    name: str
    columns: tuple[Column, ...]

    def table(
        self, outputs: Mapping[str, NDArray], calibration: Mapping[str, Any], seen: Seen
    ) -> tuple[dict[str, NDArray], NDArray]:
        """Turn outputs into columns.

        Parameters
        ----------
        outputs
            Name of each head of the network -> its output, n rows.
        calibration
            Numbers of the bundle that the task needs for it.
        seen
            What the network was shown of the n objects.

        Returns
        -------
        values : dict[str, NDArray]
            Name of each of ``columns`` -> values of its dtype, shape (n,). A masked array has no number
            where it is masked: the released table says null there.
        finite : NDArray[np.bool_]
            False for rows whose output is not finite and has no meaning, shape (n,).
        """
        ...


@runtime_checkable
class Ranked(Task, Protocol):
    """A task whose best candidates people look through, one by one."""

    #: Column by which they are ranked, the largest first; null is not on the list.
    ranked_by: str
    #: Head of the network whose map of evidence is shown beside each.
    evidence: str
    #: Share of a catalog that is on the list where the night does not say.
    review: float


@runtime_checkable
class DistributionTask(Task, Protocol):
    """A task that also says how probable each value of a quantity is.

    Attributes
    ----------
    distribution
        Key of the probability densities in the values of `table`, float16, shape (n, bins). They are
        released in files of their own: see `gzscale.catalog.pdfs`.
    """

    distribution: str

    def edges(self, calibration: Mapping[str, Any]) -> NDArray[np.float64]:
        """Return the edges of the bins, shape (bins + 1,)."""
        ...


def load_task(name: str) -> Task:
    """Make a task by its name.

    Raises
    ------
    ConfigError
        If no installed package has a task of that name.
    """
    found = {entry.name: entry for entry in entry_points(group=GROUP)}
    if name not in found:
        raise ConfigError(f"task {name!r} is not one of {sorted(found)}")
    return found[name].load()()
