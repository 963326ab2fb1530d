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
# # Which law fits, and what can it know?
#
# The paper's law multiplies a line in log images by a line in log resolution and leaves the model's
# size out. Beside it stand the same product with parameters as a third factor, a sum, and a sum on
# the logit scale, which cannot leave [0, 1].

# %% tags=["parameters"]
study = "pocket"  # a study under studies/
out = "published"  # the run folder, runs/<out>/; published = results/<study>/

# %%
from IPython.display import Markdown

from mae_lib.charts.frames import table
from mae_lib.charts.laws import law_fit
from mae_lib.charts.renderer import show
from mae_lib.report.law_frames import (
    fitted_frame,
    identifiability_frame,
    laws_frame,
    parameters_frame,
)
from mae_lib.report.results import fit_study
from mae_lib.report.verdicts import laws_sentences
from mae_lib.study.load import study_from_namespace

# %%
plan, out = study_from_namespace(globals())
fits = fit_study(plan, out)
print(f"{len(fits)} laws on {fits[0].n} cells of {plan.name}")

# %% [markdown]
# ## The laws side by side

# %%
table(laws_frame(fits))

# %%
fitted = fitted_frame(fits)
show(law_fit(fitted), data=fitted, name="fitted")

# %% [markdown]
# ## Parameters with intervals
#
# 95 % bootstrap intervals over cells, factors centred on the grid and in natural logs.

# %%
table(parameters_frame(fits))

# %% [markdown]
# ## What the design can identify
#
# A parameter that the cells cannot tell apart from another is no result, however small its residual.

# %%
table(identifiability_frame(fits))

# %% [markdown]
# ## What we learned

# %%
Markdown(laws_sentences(fits))

# %% [markdown]
# ## Limits
#
# Without repeated cells there is no pure error, so no lack-of-fit test. A small residual inside the
# grid says nothing about a point outside it: the next notebook asks that.
