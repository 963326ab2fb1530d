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
# # How fast does a GPU train these cells, and what made it so?
#
# On CUDA a step is one replayed graph: crop, forward, backward, clip and AdamW over images that stay on
# the device. Fused kernels take their place where they are measured faster.

# %% tags=["parameters"]
device = "h200"  # a folder of benchmarks/ that holds what `mae bench gpu` measured

# %%
from IPython.display import Markdown

from mae_lib.charts.frames import table
from mae_lib.charts.kernels import rates_by_mode, rates_together, share_of_ceiling, step_by_stage

# %%
from mae_lib.report.gpu_frames import ablation_frame, attention_frame, fields_frame, goals_frame
from mae_lib.report.gpu_frames import kernels_frame, stages_frame, throughput_frame, together_frame
from mae_lib.report.gpu_page import drawn, learned
from mae_lib.report.gpu_record import coverage_of_run, device_sentence, read_measured

# %%
found = read_measured(device)
Markdown(device_sentence(found, device))

# %% [markdown]
# ## What is measured, and what is not

# %%
table(coverage_of_run(found), prose=True)

# %% [markdown]
# ## Images a second beside the goal
#
# Mask ratio 0.8, bf16, data included. `ideal` is all counted FLOP at the measured ceiling of a bf16
# product; `peer` is Hugging Face's ViTMAE with a JPEG loader of 16 workers and autocast, `times peers
# step` compares with its step alone, its images on the device. Goals are set for one H200, by counting.

# %%
table(goals_frame(found))

# %%
rates = throughput_frame(found)
table(rates)

# %%
drawn(found, rates_by_mode, rates, name="rates")

# %% [markdown]
# ## What each kernel takes off a step
#
# The graph with plain operations, then with one kernel at a time. A kernel stays when it takes 3 % or
# more off a real step with the bands apart.

# %%
table(ablation_frame(found))

# %% [markdown]
# ## Kernels against their ceiling

# %%
kernels = kernels_frame(found)
table(kernels)

# %%
drawn(found, share_of_ceiling, kernels, name="ceiling")

# %% [markdown]
# ## Where a step goes
#
# Stages are timed one by one on an uncaptured step; `launches` are what the host issues a step, `kernels`
# what runs on the device.

# %%
stages = stages_frame(found)
table(stages)

# %%
drawn(found, step_by_stage, stages, name="stages")

# %% [markdown]
# ## Attention by shape

# %%
table(attention_frame(found))

# %% [markdown]
# ## Fields of the recipe: speed and loss
#
# The loss is the mean over the last tenth of the steps, on drawn images, with equal draws.

# %%
table(fields_frame(found))

# %% [markdown]
# ## Small cells at once

# %%
several = together_frame(found)
table(several)

# %%
drawn(found, rates_together, several, name="together")

# %% [markdown]
# ## What we learned

# %%
Markdown(learned(found))

# %% [markdown]
# ## Limits
#
# One device, one run of the command; bands are the 20th and 80th percentile of rounds within it. Images
# are noise, since speed does not depend on them, except where a loss is told. The peer reads files as its
# users do, so its rate is also its host's.
