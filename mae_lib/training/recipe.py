"""The optimiser and its schedule."""

import math

import torch

from mae_lib.cost import cost_of
from mae_lib.study.definition import Cell, Recipe

BETAS = (0.9, 0.95)


def planned_steps(cell: Cell) -> int:
    """Return the steps a cell is trained for: those of its recipe, or as many as its FLOP bound
    allows when that is fewer."""
    flops_per_step = cost_of(cell).flops_per_image * cell.recipe.batch_size
    return max(1, min(cell.recipe.steps, int(cell.recipe.max_flops // flops_per_step)))


def learning_rate(recipe: Recipe, step: int, steps: int) -> float:
    """Return the rate of step `step` (from 0) of `steps`: linear warm-up, then half a cosine.

    The peak is base_lr x batch_size / 256. A run cut short by its FLOP bound keeps the shape:
    the warm-up takes its share of the steps that are left.
    Source: He et al. 2022 (arXiv 2111.06377), appendix A.1; Goyal et al. 2017.
    """
    peak = recipe.base_lr * recipe.batch_size / 256
    warmup = min(recipe.warmup_steps, math.ceil(recipe.warmup_steps * steps / recipe.steps), steps)
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def build_optimizer(model: torch.nn.Module, recipe: Recipe) -> torch.optim.AdamW:
    """Build AdamW with no weight decay on biases, norms and tokens (all that is not a matrix)."""
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    decayed = [p for name, p in named if p.ndim >= 2 and "token" not in name]
    plain = [p for name, p in named if p.ndim < 2 or "token" in name]
    return torch.optim.AdamW(
        [
            {"params": decayed, "weight_decay": recipe.weight_decay},
            {"params": plain, "weight_decay": 0.0},
        ],
        lr=recipe.base_lr,
        betas=BETAS,
        fused=True,
    )
