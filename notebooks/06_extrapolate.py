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
# # What do the laws say beyond the grid?
#
# Every law is asked about the same targets. `rho` is a target's distance beyond the data divided by
# the data's range, in logs, for the factor that is farthest out. Beyond 1 no interval of this kind has
# been calibrated on real runs, so the honest answer is the spread between the laws.

# %% tags=["parameters"]
study = "pocket"  # a study under studies/
out = "published"  # the run folder, runs/<out>/; or published: results/<study>/

# %%
from IPython.display import Markdown

from mae_lib.charts.extrapolation import law_fan
from mae_lib.charts.frames import table
from mae_lib.charts.laws import prediction_fan
from mae_lib.charts.renderer import show
from mae_lib.report.heldout_frames import stacked_frame, stacked_rows, stacked_sentence
from mae_lib.report.law_curves import fan_frame, measured_along
from mae_lib.report.results import fit_study, predict_study, study_targets
from mae_lib.report.verdicts import extrapolation_sentences
from mae_lib.study.load import study_from_namespace

# %%
plan, out = study_from_namespace(globals())
predictions = predict_study(plan, out)
print(f"{predictions.law.nunique()} laws at {predictions.target.nunique()} targets")

# %% [markdown]
# ## What each law answers

# %%
show(prediction_fan(predictions), data=predictions, name="predictions")

# %%
table(predictions)

# %% [markdown]
# ## The laws on the way
#
# Along the model's size, at the most images and pixels of the grid: solid where there are cells,
# dashed on grey beyond them, up to the farthest target.

# %%
fits, targets = fit_study(plan, out), study_targets(plan)
top = dict(zip(fits[0].table.factors, fits[0].table.x.max(0), strict=True))
until = max(at["params_encoder"] for at in targets.values())
curves = fan_frame(fits, top, "params_encoder", until=until)
measured = measured_along(fits[0].table, top, "params_encoder")
show(law_fan(curves, measured, factor="Parameters (N)"), data=curves, name="along-size")

# %% [markdown]
# ## The laws averaged, in three parts
#
# Weights come from each law's own error on cells held out on the way to the target. The interval
# adds in quadrature what a law's own fit leaves open, what the laws disagree on, and what they missed.
# Beyond one range of the data there is no number: only the spread of the laws that stay possible.

# %%
stacked = stacked_rows(fits[0].table, fits, targets)
table(stacked_frame(fits[0].table, stacked), prose=True)

# %% [markdown]
# ## What we learned

# %%
averaged = "\n".join(stacked_sentence(fits[0].table, row) for row in stacked)
Markdown(f"{extrapolation_sentences(predictions)}\n{averaged}")

# %% [markdown]
# ## Limits
#
# The intervals assume that their law is true. The spread between laws is a lower bound of what is
# not known: the true law may be none of these.
