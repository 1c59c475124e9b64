"""A survey whose images kill or delay the worker that opens them, and a plugin that brings it to workers."""

from __future__ import annotations

import os
import time

from distributed import WorkerPlugin
from toy import ToySurvey

from gzscale.night import origins


class DyingSurvey(ToySurvey):
    """``deadly`` and ``slow`` name exposures; ``once`` a folder that makes them so a single time."""

    def open(self, ref):
        if ref.exposure == self.options.get("deadly") and self._first("deadly"):
            os._exit(1)
        if ref.exposure == self.options.get("slow") and self._first("slow"):
            time.sleep(300)
        return super().open(ref)

    def _first(self, what):
        folder = self.options.get("once")
        if folder is None:
            return True
        try:
            os.close(os.open(f"{folder}/{what}", os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return False
        return True


def know_dying_survey():
    """Make the survey known to this process."""
    real = origins.load_survey

    def load(kind, root, bands, options):
        return DyingSurvey(root, bands, options) if kind == "dying" else real(kind, root, bands, options)

    origins.load_survey = load


class Dying(WorkerPlugin):
    name = "dying"

    def setup(self, worker):
        know_dying_survey()
