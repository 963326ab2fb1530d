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
# array, and shows what is in it: what was asked for and what there is, how it looks, what is there
# twice, what was left out, how many of its pixels are real, and under which terms it comes. Where
# the study is procedural, every image is drawn by code and none is a photograph.

# %% tags=["parameters"]
study = "pocket"  # a study under studies/
out = "scratch"  # the run folder, runs/<out>/

# %%
from IPython.display import display

from mae_lib.charts.frames import table
from mae_lib.charts.mixture import data_mixture, native_sizes, real_pixels
from mae_lib.charts.pictures import picture, pictures
from mae_lib.charts.renderer import show
from mae_lib.images.card import describe, feasibility, montage, pairs_png, png_bytes
from mae_lib.images.card import set_aside_frame, tasks_frame, terms_frame

# %%
from mae_lib.images.datasheet import manifest_seal
from mae_lib.images.duplicates import summary
from mae_lib.images.hygiene import duplicates, near_of, shared_with_training
from mae_lib.images.public_sizes import feasibility as public_feasibility
from mae_lib.images.public_sizes import feasible_totals
from mae_lib.images.resolution import native_frame, patch_frame
from mae_lib.images.resolution import public_resolutions, stored_resolutions
from mae_lib.images.store import build_store
from mae_lib.study.load import load_study, study_from_namespace
from mae_lib.study.paths import RunPaths, data_root

# %%
plan, out = study_from_namespace(globals())
paper = load_study("paper")
print(f"{plan.name}: {plan.data.kind} images, {plan.data.total:,} of {plan.data.size} pixels a side")

# %% [markdown]
# ## Is the mixture possible?
#
# Asked for and there, by source. Images are never repeated unless a study says so.

# %%
table(feasibility(plan.data, data_root()))

# %% [markdown]
# The paper asks for more scenes than the public set holds. With what was published, its proportions
# allow at most the totals below.

# %%
display(table(public_feasibility(paper.data.total, paper.data.sources)))
for_paper = feasible_totals(paper.data.sources)
print(f"at most {for_paper['train']:,}; with validation images {for_paper['with_validation']:,}")

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
# ## Their native sizes
#
# The shorter side of each image as its publisher gave it, before it was resized to be stored.

# %%
sizes = native_frame(store)
show(native_sizes(sizes), data=sizes, name="native-sizes")

# %% [markdown]
# ## What is there twice
#
# `bytes` and `pixels` are exact; `near` are copies that were recompressed, rescaled or shifted a
# little: their perceptual hashes lie close and their edges correlate. A pair with a test part is a
# twin of evaluation: kind `sources` leaves such images out of pretraining unless told otherwise.

# %%
pairs, near = duplicates(store), near_of(plan.data.kind)
print(f"near: pHash {near.phash_bits}, dHash {near.dhash_bits} bits of 64; edges {near.correlation}")
print(f"{len(pairs)} pairs; twins of evaluation: {plan.data.twins}")
table(summary(pairs))

# %% [markdown]
# The closest pairs, exact ones first, side by side (no picture: no pair).

# %%
display(*pictures(pairs_png(store, pairs, most=12, across=4), alt="Pairs that count as copies"))
table(pairs.head(12)[["kind", "name_1", "name_2", "array_2", "phash_bits", "edge_correlation"]])

# %% [markdown]
# ## What was set aside
#
# Images that cannot be decoded, and twins of evaluation where they are dropped, each with why.

# %%
aside = set_aside_frame(store)
print(f"{len(aside)} set aside; more than {plan.data.set_aside_limit:.2%} damaged fails the build")
table(aside.head(20), prose=True)

# %% [markdown]
# ## How many pixels are real
#
# `effective` is min(native, resolution): above its native size an image gains pixels and no
# detail. `real pixels` is the share of the resolution's pixels that the native size supports.

# %%
asked = sorted({cell.resolution for cell in plan.cells})
table(stored_resolutions(store, asked))

# %% [markdown]
# The same for the public sets at the paper's resolutions, and at the 4096 pixels of its claim: there
# nearly every pixel is interpolation, CIFAR-10 above 32 and CelebA above 178 pixels in any case.

# %%
public = public_resolutions(paper.data.sources, [32, 64, 128, 226, 256, 512, 1024, 4096])
show(real_pixels(public), data=public, name="real-pixels")

# %%
table(public[public["resolution"].isin([226, 4096])])

# %% [markdown]
# Pixels that reach the encoder: a side that the patch does not divide is rounded down to whole
# patches, and the crop is resized to that. The second table is the paper's.

# %%
display(table(patch_frame(plan.cells)), table(patch_frame(paper.cells)))

# %% [markdown]
# ## What is held out for evaluation

# %%
print("pretraining shares with the probes' training parts, by design:", shared_with_training(store))
table(tasks_frame(store))

# %% [markdown]
# ## Licences and terms
#
# ImageNet, CelebA and ADE20K forbid redistribution: the project ships none of their images, only
# the manifest from which they are rebuilt. The second table is for the public sets of the paper.

# %%
names = [source.name for source in plan.data.sources]
display(table(terms_frame(names, plan.data.kind), prose=True))
table(terms_frame([source.name for source in paper.data.sources], paper.data.kind), prose=True)

# %% [markdown]
# ## Proof
#
# The digest of the recipe names the folder; the hash of the pixels says whether two machines built
# the same images; the seal of the manifest covers every file. `mae data verify` compares them block
# by block, `mae data croissant` and `mae data datasheet` describe them for other tools and readers.

# %%
print("recipe  ", store.manifest["digest"])
print("pixels  ", store.manifest["files"]["images.npy"])
print("manifest", manifest_seal(store))

# %% [markdown]
# ## What we learned
#
# The numbers are those of the study of this page.

# %%
at_most = stored_resolutions(store, asked).query("source == 'all'")["real_pixels"].iloc[-1]
print(f"- {len(store.images):,} images are packed, {len(pairs)} pairs of them count as copies.")
print(f"- At {asked[-1]} pixels, {at_most:.1%} of the stored pixels are real.")
print(f"- The paper's mixture has at most {for_paper['train']:,} images, not {paper.data.total:,}.")

# %% [markdown]
# ## Limits
#
# Labels are those of the sources; nothing here checks them. Near duplicates are those that two
# perceptual hashes and the edges find: a mirrored or strongly cropped copy is not found. A
# procedural image shows what the method can learn from the factors that its code varies, and
# nothing about photographs.
