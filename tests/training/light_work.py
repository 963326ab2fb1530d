"""Work for test_processes.py, in a module that is quick to import."""

import os
import signal
import time

from mae_lib.errors import StudyError


def work(job):
    kind, value = job
    if kind == "refuse":
        raise StudyError(f"cell: {value} cannot be run")
    if kind == "break":
        raise ValueError(f"{value} broke")
    if kind == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if kind == "sleep":
        time.sleep(60)
    return value, os.getpid()
