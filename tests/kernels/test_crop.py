"""Crops equal Pillow's to its own rounding, and do not depend on the batch they are drawn in."""

import numpy as np
import pytest
import torch
from PIL import Image

from mae_lib.kernels.crop import crop_resize, denormalise, draw_boxes, normalise, whole_boxes


def photograph_like(count: int, size: int) -> np.ndarray:
    noise = np.random.default_rng(0).normal(size=(count, size // 4, size // 4, 3))
    smooth = noise.repeat(4, 1).repeat(4, 2)
    return np.clip(128 + 50 * smooth, 0, 255).astype(np.uint8)


@pytest.mark.parametrize(("size", "out"), [(64, 32), (64, 64), (64, 16), (32, 64), (48, 20)])
def test_crops_equal_pillows_within_a_grey_level(size, out):
    images = photograph_like(40, size)
    boxes, flips = draw_boxes(1, np.arange(40), 0, size=size, crop_min=0.2, flip=True)
    ours = crop_resize(torch.from_numpy(images), boxes, flips, out).numpy()
    error = []
    for image, (top, left, height, width), flip, mine in zip(
        images, boxes.tolist(), flips.tolist(), ours, strict=True
    ):
        box = Image.fromarray(image).crop((left, top, left + width, top + height))
        theirs = np.asarray(box.resize((out, out), Image.Resampling.BICUBIC), np.float64)
        error.append(np.abs(mine - (theirs[:, ::-1] if flip else theirs)))
    assert np.mean(error) < 0.4
    assert np.quantile(error, 0.999) < 2


def test_a_whole_image_at_its_own_size_is_unchanged():
    images = torch.from_numpy(photograph_like(3, 32))
    same = crop_resize(images, *whole_boxes(3, 32), 32)
    torch.testing.assert_close(same, images.float(), atol=1e-3, rtol=0)


def test_boxes_fit_cover_the_asked_areas_and_do_not_depend_on_the_batch():
    boxes, flips = draw_boxes(0, np.arange(5000), 7, size=64, crop_min=0.2, flip=True)
    top, left, height, width = boxes.T
    assert (top >= 0).all()
    assert (top + height <= 64).all()
    assert (left >= 0).all()
    assert (left + width <= 64).all()
    area = (height * width) / 64**2
    assert 0.18 < area.min() < 0.25
    assert area.max() == 1
    assert 0.45 < flips.float().mean() < 0.55
    some, _ = draw_boxes(0, np.arange(70, 90), 7, size=64, crop_min=0.2, flip=True)
    assert torch.equal(boxes[70:90], some)
    steps, _ = draw_boxes(0, np.arange(2), np.array([7, 8]), size=64, crop_min=0.2, flip=True)
    assert torch.equal(steps[0], boxes[0])
    assert not torch.equal(steps[1], boxes[1])


def test_normalise_and_denormalise_are_inverses():
    images = torch.rand(2, 4, 4, 3) * 255
    torch.testing.assert_close(denormalise(normalise(images)), images, atol=1e-3, rtol=1e-5)
