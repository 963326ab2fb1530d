"""gpu.json: what was measured so far, whole at any time, with what could not be."""

import argparse
import time
from datetime import UTC, datetime
from pathlib import Path

from mae_lib.bench.gpu_plan import Task
from mae_lib.errors import RecordError
from mae_lib.records.provenance import commit
from mae_lib.records.sealed import read_sealed, write_sealed

# Lists of rows; every row names the task that made it.
LISTS = ("throughput", "kernels", "sdpa", "profile", "fields", "together")
# One mapping each.
MAPPINGS = ("provenance", "ceilings", "tests", "cell")


class GpuRecord:
    """The file of a run: written anew after each task.

    A file of another half on the same device and commit is added to; any other is set aside under
    the name of its time.
    """

    def __init__(self, path: Path, tasks: list[Task], arguments: argparse.Namespace):
        self.path = path
        self._began = time.monotonic()
        self._stages = {task.id for task in tasks}
        self.value = {
            "kind": "bench gpu",
            "dry": arguments.dry,
            "commit": commit(),
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
            "complete": False,
            **{name: [] for name in LISTS},
            **{name: {} for name in MAPPINGS},
            "errors": [],
            "unmeasured": [],
            "tasks": [],
        }
        self._aside = path
        self._earlier = self._read()
        self._write()

    def take(self, task: Task, sections: dict, error: str | None) -> None:
        """Keep what a task found so far, and an error beside it."""
        for section, found in sections.items():
            if section in MAPPINGS:
                self.value[section] |= found
            else:
                self.value[section] += [{**row, "task": task.id} for row in found]
        if error:
            self.value["errors"].append({"task": task.id, "error": error})
        if task.stage == "provenance":
            self._join_earlier()
        self._write()

    def ended(self, task: Task, error: str | None, *, seconds: float) -> None:
        """Note that a task is over."""
        if error:
            self.value["errors"].append({"task": task.id, "error": error})
        self._note(task, "failed" if error else "done", seconds)
        self._write()

    def failed(self, task: Task, why: str) -> None:
        """Keep why a task gave nothing."""
        self.value["errors"].append({"task": task.id, "error": why})
        self._note(task, "failed", None)
        self._write()

    def missed(self, task: Task, why: str) -> None:
        """Keep that a task was not done."""
        self.value["unmeasured"].append({"task": task.id, "why": why})
        self._note(task, "missed", None)
        self._write()

    def close(self) -> None:
        """Say that the run ended by itself."""
        self.value["complete"] = True
        self._write()

    def summary(self) -> str:
        """Return one line on what there is."""
        value, states = self.value, [task["status"] for task in self.value["tasks"]]
        return (
            f"{self.path}: {states.count('done')} tasks done, {states.count('failed')} failed, "
            f"{states.count('missed')} missed; {len(value['throughput'])} rates, "
            f"{len(value['errors'])} errors, {value['wall_s']:.0f} s"
        )

    def _note(self, task: Task, status: str, seconds: float | None) -> None:
        row = {"id": task.id, "status": status}
        if seconds is not None:
            row["seconds"] = round(seconds, 2)
        self.value["tasks"].append(row)
        time_said = f" {seconds:.1f} s" if seconds is not None else ""
        print(f"{task.id}: {status}{time_said}", flush=True)

    def _write(self) -> None:
        self.value["wall_s"] = round(time.monotonic() - self._began, 1)
        write_sealed(self.path, self.value)

    def _read(self) -> dict | None:
        if not self.path.exists():
            return None
        try:
            earlier = read_sealed(self.path)
        except RecordError:
            earlier = None
        when = (earlier or {}).get("started", "unreadable").replace(":", "")
        self._aside = self.path.with_name(f"gpu-{when}.json")
        self.path.rename(self._aside)
        return earlier

    def _join_earlier(self) -> None:
        """Take over the other half's rows, once the device is known to be the same one."""
        earlier, now = self._earlier, self.value
        self._earlier = None
        if earlier is None or any(earlier[k] != now[k] for k in ("dry", "commit")):
            return
        if earlier["provenance"].get("device") != now["provenance"].get("device"):
            return

        def kept(rows: list[dict], key: str) -> list[dict]:
            return [row for row in rows if row[key] not in self._stages]

        for name in (*LISTS, "errors", "unmeasured"):
            now[name] = kept(earlier[name], "task") + now[name]
        now["tasks"] = kept(earlier["tasks"], "id") + now["tasks"]
        for name in ("ceilings", "tests", "cell"):
            now[name] = earlier[name] | now[name]
        self._write()
        # All of it is here now; left there, its rows would be read twice.
        self._aside.unlink()
