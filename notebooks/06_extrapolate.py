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
# # How far may the law be extrapolated?
#
# Every law is asked about the same targets. `rho` is a target's distance beyond the data divided by
# the data's range, in logs, for the factor that is farthest out. Beyond 1 no interval of this kind has
# been calibrated on real runs, so the honest answer is the spread between the laws.

# %% tags=["parameters"]
study = "pocket"  # a study under studies/
out = "published"  # the run folder, runs/<out>/; published = results/<study>/

# %%
from IPython.display import Markdown

from mae_lib.charts.frames import table
from mae_lib.charts.laws import prediction_fan
from mae_lib.charts.renderer import show
from mae_lib.report.results import predict_study
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
# ## What we learned

# %%
Markdown(extrapolation_sentences(predictions))

# %% [markdown]
# ## Limits
#
# The intervals assume that their law is true. The spread between laws is a lower bound of what is
# not known: the true law may be none of these.
