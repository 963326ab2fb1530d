"""The order in which a study's cells are measured: `results/<study>/plan.json`, committed first.

It keeps each cell's digest as the schema's road gives it, so that a machine without the schema
finds out when it reads a study otherwise.
"""

from dataclasses import asdict, dataclass
from pathlib import Path

from mae_lib.errors import RecordError
from mae_lib.records.sealed import read_sealed, write_sealed
from mae_lib.study.definition import Study


@dataclass(frozen=True)
class PlannedCell:
    """One cell of the plan: seconds planned on the accelerator, and whether it is predicted first."""

    id: str
    digest: str
    seconds: float
    largest: bool


@dataclass(frozen=True)
class MeasuringPlan:
    """The cells in order, and the rules of that order and of the largest, in words."""

    study: str
    order_rule: str
    largest_rule: str
    cells: tuple[PlannedCell, ...]

    @property
    def largest(self) -> tuple[str, ...]:
        """The cells that are predicted before any of them is measured."""
        return tuple(cell.id for cell in self.cells if cell.largest)


def write_plan(path: Path, plan: MeasuringPlan) -> None:
    """Write a plan, sealed."""
    write_sealed(path, asdict(plan))


def read_plan(path: Path, study: Study) -> MeasuringPlan:
    """Read a plan and compare every digest with the study's cells.

    Raises: RecordError when it is missing or damaged, or of another study than the one given.
    """
    if not path.exists():
        raise RecordError(f"{path}: missing; write it: mae study order {study.name}", exit_code=2)
    value = read_sealed(path)
    cells = tuple(PlannedCell(**cell) for cell in value["cells"])
    planned = {cell.id: cell.digest for cell in cells}
    stated = {cell.id: cell.digest for cell in study.cells}
    if planned != stated:
        other = sorted(set(planned.items()) ^ set(stated.items()))
        raise RecordError(
            f"{path}: {other[0][0]}: the plan and {study.name} differ in {len(other)} entries; "
            f"if the study has changed, write the plan anew: mae study order {study.name}"
        )
    return MeasuringPlan(value["study"], value["order_rule"], value["largest_rule"], cells)
