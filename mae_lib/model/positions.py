"""Fixed sine-cosine positions of a grid of patches, computed for any size."""

import torch
from jaxtyping import Float
from torch import Tensor


def sincos_positions(embed_dim: int, rows: int, columns: int) -> Float[Tensor, "tokens dim"]:
    """Return the positions of a class token (zeros) and of rows x columns patches, row by row.

    The first half of the channels encodes the column, the second the row, each as sines then
    cosines: the order of the MAE paper's code, which Hugging Face keeps.
    Source: He et al. 2022 (arXiv 2111.06377); Vaswani et al. 2017.
    """
    frequency = 1.0 / 10000 ** (torch.arange(embed_dim // 4, dtype=torch.float64) * 4 / embed_dim)
    row, column = torch.meshgrid(
        torch.arange(rows, dtype=torch.float64),
        torch.arange(columns, dtype=torch.float64),
        indexing="ij",
    )
    angles = [axis.reshape(-1, 1) * frequency for axis in (column, row)]
    grid = torch.cat([wave for a in angles for wave in (a.sin(), a.cos())], dim=1)
    return torch.cat([torch.zeros(1, embed_dim, dtype=torch.float64), grid])
