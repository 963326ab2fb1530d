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
# # What are the images?
#
# A study pretrains on a mixture of four sources in the paper's proportions and evaluates on
# labelled images that are held out from pretraining. This page builds both, once, into one packed
# array, and shows what is in it. Where the study is procedural, every image is drawn by code and
# none is a photograph.

# %% tags=["parameters"]
study = "pocket"  # a study under studies/
out = "scratch"  # the run folder, runs/<out>/

# %%
from mae_lib.charts.frames import table
from mae_lib.charts.mixture import data_mixture
from mae_lib.charts.pictures import picture
from mae_lib.charts.renderer import show
from mae_lib.images.card import describe, montage, png_bytes, resolutions, tasks_frame
from mae_lib.images.store import build_store
from mae_lib.study.load import study_from_namespace
from mae_lib.study.paths import RunPaths, data_root

# %%
plan, out = study_from_namespace(globals())
print(f"{plan.name}: {plan.data.kind} images, {plan.data.total:,} of {plan.data.size} pixels a side")

# %% [markdown]
# ## The mixture as asked and as built

# %%
store = build_store(
    plan.data, RunPaths.of(out).store(plan.data.digest), data_root=data_root()
)
card = describe(store)
table(card)

# %%
show(data_mixture(card), data=card, name="mixture")

# %% [markdown]
# ## What they look like
#
# One row a source, eight images each, as stored.

# %%
picture(png_bytes(montage(store, per_source=8)), alt="Eight images of each source, one row a source")

# %% [markdown]
# ## How many pixels are real
#
# `effective` is min(native, resolution): above its native size an image gains pixels and no
# detail.

# %%
table(resolutions(store, sorted({cell.resolution for cell in plan.cells})))

# %% [markdown]
# ## What is held out for evaluation

# %%
table(tasks_frame(store))

# %% [markdown]
# ## Proof
#
# The digest of the recipe names the folder; the hash of the pixels says whether two machines built
# the same images.

# %%
print("recipe", store.manifest["digest"])
print("pixels", store.manifest["files"]["images.npy"][:16])

# %% [markdown]
# ## Limits
#
# Labels are those of the sources; nothing here checks them. A procedural image shows what the
# method can learn from the factors that its code varies, and nothing about photographs.
