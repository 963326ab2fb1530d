"""Cut a box out of each image and resize it, antialiased, for a whole batch at once.

The filter is Pillow's bicubic: a = -0.5, its support widened by the scale when shrinking, cut at the
edges of the box. A row of weights an output pixel makes the two passes two batched products.
"""

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from mae_lib.kernels.philox import Purpose, random_words, uniform

# Mean and SD of ImageNet's channels in [0, 1], as every masked auto-encoder uses them.
MEAN = (0.485, 0.456, 0.406)
SD = (0.229, 0.224, 0.225)

_ATTEMPTS = 10
_RATIO = (3 / 4, 4 / 3)


def draw_boxes(
    seed: int, items: np.ndarray, step, *, size: int, crop_min: float, flip: bool
) -> tuple[Int[Tensor, "B 4"], Bool[Tensor, " B"]]:
    """Draw a random resized crop (top, left, height, width) and a flip for each image.

    The area is uniform in [crop_min, 1] of the image, the aspect ratio log-uniform in [3/4, 4/3];
    a draw that does not fit is drawn again, ten times at most, then the whole image is taken.
    Drawn on the host in float64 by counter, so that it never depends on batch or device.
    """
    words = uniform(random_words(seed, Purpose.CROP, items, step, draws=2 * _ATTEMPTS + 3))
    area, ratio = words[..., :_ATTEMPTS], words[..., _ATTEMPTS : 2 * _ATTEMPTS]
    area = (crop_min + (1 - crop_min) * area) * size**2
    low, high = np.log(_RATIO[0]), np.log(_RATIO[1])
    ratio = np.exp(low + (high - low) * ratio)
    width = np.rint(np.sqrt(area * ratio)).astype(np.int64)
    height = np.rint(np.sqrt(area / ratio)).astype(np.int64)
    fits = (width <= size) & (height <= size) & (width > 0) & (height > 0)
    first = fits.argmax(-1)[..., None]
    width = np.take_along_axis(width, first, -1)[..., 0]
    height = np.take_along_axis(height, first, -1)[..., 0]
    none = ~fits.any(-1)
    width[none], height[none] = size, size
    top = np.floor(words[..., -3] * (size - height + 1)).astype(np.int64)
    left = np.floor(words[..., -2] * (size - width + 1)).astype(np.int64)
    flips = (words[..., -1] < 0.5) & flip
    boxes = np.stack([top, left, height, width], -1)
    return torch.from_numpy(boxes), torch.from_numpy(flips)


def whole_boxes(count: int, size: int) -> tuple[Int[Tensor, "B 4"], Bool[Tensor, " B"]]:
    """Return boxes that keep each image whole, and no flips."""
    boxes = torch.tensor([0, 0, size, size]).expand(count, 4)
    return boxes, torch.zeros(count, dtype=torch.bool)


def crop_resize(
    images: UInt8[Tensor, "B S S 3"], boxes: Int[Tensor, "B 4"], flips: Bool[Tensor, " B"], out: int
) -> Float[Tensor, "B out out 3"]:
    """Return each image's box at `out` x `out` pixels, in grey levels 0 to 255.

    Error: mean absolute difference to Pillow's crop and resize under 0.4 grey levels, which is
    Pillow's rounding to whole levels after each pass (tests/kernels/test_crop.py).
    """
    batch, size = images.shape[:2]
    down = _weights(boxes[:, 0], boxes[:, 2], size, out)
    across = _weights(boxes[:, 1], boxes[:, 3], size, out)
    across = torch.where(flips[:, None, None], across.flip(1), across)
    columns = images.transpose(1, 2).reshape(batch, size, size * 3).float()
    # Pillow rounds and clips between its passes; only the clipping can be seen.
    columns = torch.bmm(across, columns).clamp(0, 255).view(batch, out, size, 3)
    rows = columns.transpose(1, 2).reshape(batch, size, out * 3)
    return torch.bmm(down, rows).clamp(0, 255).view(batch, out, out, 3)


def normalise(images: Float[Tensor, "*B height width 3"]) -> Float[Tensor, "*B height width 3"]:
    """Turn grey levels into channels of mean 0 and SD 1 (of ImageNet)."""
    mean, sd = images.new_tensor(MEAN), images.new_tensor(SD)
    return (images - 255 * mean) / (255 * sd)


def denormalise(images: Float[Tensor, "*B height width 3"]) -> Float[Tensor, "*B height width 3"]:
    """Turn normalised channels back into grey levels 0 to 255; the inverse of `normalise`."""
    mean, sd = images.new_tensor(MEAN), images.new_tensor(SD)
    return images * (255 * sd) + 255 * mean


def _weights(start: Tensor, length: Tensor, size: int, out: int) -> Float[Tensor, "B out S"]:
    """Return for each output pixel its weight on each source pixel; rows sum to 1."""
    pixel = torch.arange(size, device=start.device, dtype=torch.float32)
    index = torch.arange(out, device=start.device, dtype=torch.float32)
    start, length = start.float()[:, None, None], length.float()[:, None, None]
    scale = length / out
    stretch = scale.clamp(min=1.0)
    centre = start + (index[None, :, None] + 0.5) * scale
    weights = _bicubic((pixel[None, None, :] + 0.5 - centre) / stretch)
    inside = (pixel >= start) & (pixel < start + length)
    weights = weights * inside
    return weights / weights.sum(-1, keepdim=True)


def _bicubic(x: Tensor) -> Tensor:
    """Keys' cubic convolution kernel with a = -0.5."""
    x = x.abs()
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return torch.where(x < 1, near, torch.where(x < 2, far, torch.zeros_like(x)))
