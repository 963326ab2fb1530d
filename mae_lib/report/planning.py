"""A study priced before it is run."""

import pandas as pd

from mae_lib.cost import cost_of
from mae_lib.study.definition import Study


def plan_frame(study: Study) -> pd.DataFrame:
    """Return a row a cell: size, pixels and tokens that reach the encoder, FLOPs, GPU-hours."""
    rows = []
    for cell in study.cells:
        cost = cost_of(cell)
        seen = cell.recipe.steps * cell.recipe.batch_size
        rows.append(
            {
                "model": cell.model,
                "images": cell.images,
                "resolution": cell.resolution,
                "pixels": cell.pixels,
                "visible": f"{cost.kept} of {cost.tokens}",
                "parameters": f"{cost.params_encoder / 1e6:.1f} M",
                "images_seen": seen,
                "training_flop": float(cost.flops_per_image * seen),
                "gpu_hours": round(cost.gpu_hours(seen), 2),
            }
        )
    return pd.DataFrame(rows)
