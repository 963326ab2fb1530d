"""The loss of an answer that knows nothing, beside which a loss is read."""

import torch

from mae_lib.kernels.patches import gather_patches
from mae_lib.model.mae import MaskedAutoencoder
from mae_lib.training.batches import Batch


def predict_mean_loss(model: MaskedAutoencoder, batch: Batch) -> float:
    """Return the loss on a batch of predicting the mean, computed on its masked patches.

    With normalised targets the mean of each patch, which is 0: 1 - 1/n for n values a patch, as
    the variance is the unbiased one, and less where patches are flat. With plain pixels the mean
    of each value over all masked patches of the batch.
    """
    with torch.no_grad():
        masked = batch.order[:, model.keep :]
        targets = model.targets(gather_patches(batch.pixels, masked, model.patch_size))
        if not model.norm_pix:
            targets = targets - targets.mean((0, 1))
        return targets.square().mean().item()
