# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # What does one cell learn without labels?
#
# A cell is one training run: a model, a number of distinct images, a resolution, a seed. The model
# sees a fifth of the patches of an image and predicts the pixels of the rest. Change any of the
# parameters below, by hand or with papermill, and the cell is another one with its own folder.

# %% tags=["parameters"]
study = "pocket"  # a study under studies/, for its images and its evaluation
out = "scratch"  # the run folder, runs/<out>/
model = "vit_nano"  # vit_pico ... vit_huge
images = 800  # distinct images to pretrain on
resolution = 32  # pixels a side of what the encoder gets
patch_size = None  # pixels a side of a patch; None follows the study's rule
mask_ratio = 0.8  # share of patches removed
seed = 0  # picks the subset, the initialisation, crops and masks
steps = None  # optimiser steps; None follows the study, here and below
batch_size = None  # images a step

# %%
from IPython.display import Markdown

from mae_lib.charts.curves import loss_curve, metrics_frame
from mae_lib.charts.frames import table
from mae_lib.charts.pictures import picture
from mae_lib.charts.renderer import show
from mae_lib.images.card import png_bytes
from mae_lib.study.load import cell_from_namespace
from mae_lib.training.assess import train_cell
from mae_lib.training.describe import describe_cell, learned, reconstructions

# %%
cell, out = cell_from_namespace(globals())
print(cell.id)
table(describe_cell(cell))

# %% [markdown]
# ## Training
#
# The loss is the mean squared error on the masked patches after each patch is scaled to mean 0 and
# variance 1, so that predicting the mean scores 1.

# %%
trained = train_cell(cell, out)
print(f"status {trained.status}, {trained.steps} steps, {trained.images_seen:,} images seen")

# %% [markdown]
# The digits of a loss depend on the processor, so the next three outputs are not compared when the
# notebook is validated; that the loss fell, and how far, is.

# %% tags=["nbval-ignore-output"]
metrics = metrics_frame(trained.folder)
show(loss_curve(metrics), data=metrics, name="loss")

# %%
print("the loss fell by a tenth:", bool(metrics.loss.iloc[-1] < 0.9 * metrics.loss.iloc[0]))

# %% [markdown]
# ## What it predicts
#
# Three images held out from training: as given, with the masked patches removed, and as predicted.
# With normalised targets a prediction lacks each patch's own mean and contrast; they are put back
# from the true patch, so the colours are given and only the pattern inside a patch is predicted.

# %% tags=["nbval-ignore-output"]
picture(png_bytes(reconstructions(cell, trained, count=3)), alt="Original, masked, predicted")

# %% [markdown]
# ## What we learned

# %% tags=["nbval-ignore-output"]
Markdown(learned(cell, trained))

# %% [markdown]
# ## Limits
#
# One run is one draw: another seed gives another loss. A lower loss is no better encoder by
# itself, because patch size and mask ratio change its scale; notebook 03 measures what the
# features know.
