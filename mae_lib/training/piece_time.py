"""What a cell took, and how long the next one will take here: planned, corrected by what was met."""

import statistics
from dataclasses import dataclass, field

from mae_lib.cost import cost_of
from mae_lib.devices import cell_seconds
from mae_lib.study.definition import Cell

# A cell is begun when so many times its expected seconds are left.
MARGIN = 1.2
# Beside the cells' tensors: a process's context and kernels, and what else is on the device.
CONTEXT_BYTES, USABLE = 1.5 * 2**30, 0.85
# Batch, targets, decoder tokens and the optimizer's buffers, beside the counted activations.
BESIDE_ACTIVATIONS = 2.0


@dataclass(frozen=True)
class Answer:
    """What a worker says of a cell: `error` None when its record is written.

    `seconds` has `train`, `baselines` (measured or waited for, once an encoder shape), `total`, and
    `peak_memory_bytes`; `memory` says that memory ran out.
    """

    cell: str
    seconds: dict
    error: str | None = None
    memory: bool = False


@dataclass
class Expected:
    """Expected seconds by cell. `cores` is the processor's where there is no accelerator."""

    cores: int | None
    ratios: dict[str, list[float]] = field(default_factory=dict)

    def seconds(self, cell: Cell) -> float:
        """Return the planned seconds times the median of what cells of this model took of theirs."""
        own = self.ratios.get(cell.model)
        every = own or [r for ratios in self.ratios.values() for r in ratios]
        return cell_seconds(cell, cores=self.cores) * (statistics.median(every) if every else 1.0)

    def learn(self, cell: Cell, seconds: float) -> None:
        """Take in what a cell took."""
        self.ratios.setdefault(cell.model, []).append(
            seconds / cell_seconds(cell, cores=self.cores)
        )

    def fits(self, cell: Cell, left: float) -> bool:
        """Whether a cell is expected to end in time, with some margin."""
        return MARGIN * self.seconds(cell) <= left


def memory_of(cell: Cell) -> float:
    """Return the bytes that a cell is planned to need on an accelerator."""
    cost = cost_of(cell)
    activations = cost.activation_bytes_per_image * cell.recipe.batch_size
    return cost.state_bytes + BESIDE_ACTIVATIONS * activations + CONTEXT_BYTES
