"""Crops in whole numbers are Pillow's, byte for byte, wherever Pillow goes across before down."""

import numpy as np
import pytest
import torch
from PIL import Image

from mae_lib.kernels.crop import crop_resize, draw_boxes, normalise, whole_boxes
from mae_lib.kernels.crop_integer import crop_integer, crop_way, weight_table
from mae_lib.kernels.crop_patches import crop_patches_reference, level_table, random_arguments
from mae_lib.kernels.patches import patchify

CPU = torch.device("cpu")


def with_pillow(image: np.ndarray, box: tuple[int, ...], flip: bool, out: int) -> np.ndarray:
    top, left, height, width = box
    cut = Image.fromarray(image).crop((left, top, left + width, top + height))
    resized = np.asarray(cut.resize((out, out), Image.Resampling.BICUBIC))
    return resized[:, ::-1] if flip else resized


def ours(image: np.ndarray, box: tuple[int, ...], flip: bool, out: int) -> np.ndarray:
    boxes, flips = torch.tensor([box]), torch.tensor([flip])
    return crop_integer(torch.from_numpy(image.copy())[None], boxes, flips, out)[0].numpy()


def down_first(image: np.ndarray, box: tuple[int, ...], flip: bool, out: int) -> np.ndarray:
    """The other order of passes is ours on the image laid on its side."""
    top, left, height, width = box
    turned = ours(image.transpose(1, 0, 2), (left, top, width, height), False, out)
    turned = turned.transpose(1, 0, 2)
    return turned[:, ::-1] if flip else turned


def random_crops(count: int):
    """Noise, the hardest image, of odd shapes; boxes shrunk and enlarged up to four times."""
    rng = np.random.default_rng(0)
    for _ in range(count):
        height, width = np.exp(rng.uniform(np.log(16), np.log(512), 2)).astype(int)
        box_height = int(rng.integers(max(4, height // 4), height + 1))
        box_width = int(rng.integers(max(4, width // 4), width + 1))
        low = max(4, -(-max(box_height, box_width) // 4))
        out = int(np.exp(rng.uniform(np.log(low), np.log(4 * min(box_height, box_width) + low))))
        top = int(rng.integers(0, height - box_height + 1))
        left = int(rng.integers(0, width - box_width + 1))
        image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        yield image, (top, left, box_height, box_width), bool(rng.random() < 0.5), min(out, 512)


def test_200_random_crops_are_pillows_in_its_order_of_passes_and_close_in_ours():
    across_first, errors = 0, []
    for image, box, flip, out in random_crops(200):
        mine, theirs = ours(image, box, flip, out), with_pillow(image, box, flip, out)
        if np.array_equal(mine, theirs):
            across_first += 1
        else:
            assert np.array_equal(down_first(image, box, flip, out), theirs), (image.shape, box)
            errors.append(np.abs(mine.astype(float) - theirs).mean())
    assert across_first > 100
    assert max(errors) < 1


def test_a_constant_image_stays_constant_and_a_whole_one_unchanged():
    flat = np.full((37, 53, 3), 200, np.uint8)
    assert (ours(flat, (3, 5, 31, 47), False, 19) == 200).all()
    image = np.random.default_rng(1).integers(0, 256, (24, 24, 3), dtype=np.uint8)
    assert np.array_equal(ours(image, (0, 0, 24, 24), False, 24), image)
    assert np.array_equal(ours(image, (0, 0, 24, 24), True, 24), image[:, ::-1])


@pytest.mark.parametrize(("size", "out"), [(64, 64), (256, 224), (96, 7)])
def test_weights_sum_to_one_within_their_rounding_and_sums_fit_32_bits(size, out):
    weights, first = weight_table(size, out, CPU)
    total = weights.long().sum(-1)[1:]
    assert (total - (1 << 22)).abs().max() <= weights.shape[-1]
    assert 255 * weights.long().abs().sum(-1).max() + (1 << 21) < 2**31
    taps_end = first[1:].long() + (weights[1:] != 0).long().mul(
        torch.arange(1, weights.shape[-1] + 1)
    ).amax(-1)
    assert (taps_end <= torch.arange(1, size + 1)[:, None]).all()


def test_a_crop_does_not_depend_on_the_batch_and_is_near_the_float_crop():
    images = torch.from_numpy(
        np.random.default_rng(2).integers(0, 256, (12, 40, 40, 3), dtype=np.uint8)
    )
    boxes, flips = draw_boxes(0, np.arange(12), 3, size=40, crop_min=0.2, flip=True)
    together = crop_integer(images, boxes, flips, 24)
    assert torch.equal(together[5:7], crop_integer(images[5:7], boxes[5:7], flips[5:7], 24))
    assert crop_way("float") is crop_resize
    whole = crop_way("integer")(images, boxes, flips, 24)
    assert torch.equal(whole, together.float())
    assert (whole - crop_resize(images, boxes, flips, 24)).abs().mean() < 0.4


def test_patches_are_those_of_the_normalised_crop_in_the_asked_order():
    store, index, boxes, flips, order = random_arguments(3, stored=20, out=16, patch=4, device=CPU)
    pixels = crop_integer(store[index], boxes, flips, 16)
    got = crop_patches_reference(
        store, index, boxes, flips, order[:, :5], out=16, patch=4, dtype=torch.float32
    )
    every = patchify(normalise(pixels.float()), 4)
    assert torch.equal(got, every.gather(1, order[:, :5, None].expand(-1, -1, 48)))
    levels = patchify(pixels, 4).gather(1, order[:, :5, None].expand(-1, -1, 48)).long()
    channel = torch.arange(48) % 3
    assert torch.equal(got, level_table(CPU)[levels, channel])


def test_whole_boxes_are_taken():
    images = torch.arange(2 * 8 * 8 * 3).remainder(256).view(2, 8, 8, 3).to(torch.uint8)
    assert torch.equal(crop_integer(images, *whole_boxes(2, 8), 8), images)
