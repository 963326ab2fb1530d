"""Every job ends by itself, whatever becomes of its process."""

import os
import time

import pytest

from mae_lib.errors import KernelError, MaeError
from mae_lib.training.processes import in_processes

from light_work import work  # isort: skip


def test_every_job_ends_by_itself_and_the_others_go_on():
    jobs = [("do", 1), ("refuse", 2), ("break", 3), ("die", 4), ("do", 5), ("do", 6)]
    found = dict(in_processes(work, jobs, at_once=2))
    assert set(found) == set(jobs)
    assert [found["do", n][0] for n in (1, 5, 6)] == [1, 5, 6]
    assert os.getpid() not in [found["do", n][1] for n in (1, 5, 6)]
    errors = {job: found[job] for job in jobs if job[0] != "do"}
    assert all(isinstance(error, MaeError) for error in errors.values())
    assert str(errors["refuse", 2]) == "cell: 2 cannot be run"
    assert errors["refuse", 2].exit_code == 2
    assert str(errors["break", 3]) == "ValueError: 3 broke"
    assert str(errors["die", 4]) == "process: ended by signal 9 before its work was done"


def test_left_early_the_processes_are_told_to_stop():
    running = in_processes(work, [("do", 1), ("sleep", 2), ("sleep", 3)], at_once=2)
    assert next(running)[0] == ("do", 1)
    began = time.monotonic()
    running.close()
    assert time.monotonic() - began < 10


def test_none_at_once_is_refused():
    with pytest.raises(KernelError, match="at_once: from 1, got 0"):
        next(in_processes(work, [], at_once=0))
