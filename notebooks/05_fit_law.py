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
out = "published"  # the run folder, runs/<out>/; or published: results/<study>/

# %%
from IPython.display import Markdown

from mae_lib.charts.extrapolation import factor_map, heldout_by_rho
from mae_lib.charts.frames import table
from mae_lib.charts.laws import law_fit
from mae_lib.charts.renderer import show

# %%
from mae_lib.report.heldout_frames import held_out, heldout_frame, heldout_sentence, heldout_wide
from mae_lib.report.law_curves import design_frame
from mae_lib.report.law_frames import fitted_frame, identifiability_frame
from mae_lib.report.law_frames import laws_frame, parameters_frame
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
table(laws_frame(fits), prose=True)

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
table(identifiability_frame(fits), prose=True)

# %%
cells = design_frame(fits[0].table)
show(factor_map(cells, across="images", factors=fits[0].table.factors), data=cells, name="levels")

# %% [markdown]
# ## Held out: the top cells predicted from the rest
#
# The top quarter of the cells along each factor, along compute and in the corner is left out, every
# law is refitted, and its error there is what it would have been as a forecast. `stacked` averages the
# laws by such errors; a split after which a factor would not vary is not possible.

# %%
found, why = held_out(fits[0].table, fits)
table(heldout_wide(found))

# %%
errors = heldout_frame(found)
show(heldout_by_rho(errors), data=errors, name="holdout")

# %% [markdown]
# ## What we learned

# %%
Markdown(f"{laws_sentences(fits)}\n{heldout_sentence(found, why)}")

# %% [markdown]
# ## Limits
#
# Without repeated cells there is no pure error, so no lack-of-fit test. Held-out cells here lie
# within one range of the rest: nothing in this notebook tests a law farther out.
