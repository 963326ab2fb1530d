"""The picture of a reconstruction shows the image, and not noise: a memorised one comes back."""

import dataclasses

import numpy as np
import pytest
from tiny_cell import CELL, DATA

from mae_lib.images.store import build_store
from mae_lib.training.assess import trained_model
from mae_lib.training.describe import reconstruction_picture
from mae_lib.training.loop import build_model, pretrain

# Two images, seen whole: 300 steps are enough to know them by heart.
RECIPE = dataclasses.replace(
    CELL.recipe, steps=300, batch_size=16, base_lr=0.06, warmup_steps=20, crop_min=1.0, flip=False,
    weight_decay=0.0,
)  # fmt: skip


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return build_store(DATA, tmp_path_factory.mktemp("store") / "s", data_root=None)


def correlations(cell, model, images):
    """Correlation of masked patches with their prediction: as shown, and without patch means."""
    picture = reconstruction_picture(cell, model, images)
    scale = picture.shape[1] // 48
    columns = np.split(picture[::scale, ::scale].astype(float), 3, axis=1)
    original, masked, predicted = (
        c.reshape(2, 4, 4, 4, 4, 3).swapaxes(2, 3).reshape(32, 48) for c in columns
    )
    hidden = (masked == 160).all(1)
    assert hidden.sum() == 2 * 13
    assert (original[~hidden] == predicted[~hidden]).all()
    original, predicted = original[hidden], predicted[hidden]
    pattern = [x - x.mean(1, keepdims=True) for x in (original, predicted)]
    return [np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in ((original, predicted), pattern)]


@pytest.mark.parametrize("norm_pix", [True, False])
def test_a_memorised_image_is_reconstructed(store, tmp_path, monkeypatch, norm_pix):
    monkeypatch.setenv("MAE_THREADS", "1")
    monkeypatch.setenv("MAE_DEVICE", "cpu")
    recipe = dataclasses.replace(RECIPE, norm_pix=norm_pix)
    cell = dataclasses.replace(CELL, images=2, recipe=recipe)
    trained = pretrain(cell, store, tmp_path, log_every=100)
    images = store.images[store.subset(2, cell.seed)]
    shown, pattern = correlations(cell, trained_model(cell, trained), images)
    assert shown > 0.9
    assert pattern > 0.9
    # Untrained, the patches' own means make a likeness where they are given; the pattern is noise.
    assert abs(correlations(cell, build_model(cell), images)[1]) < 0.4
