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
# # Do more images, a larger model and more pixels each help?
#
# Every cell of the grid in one table, each beside chance, raw pixels and the same encoder at random
# initialisation; then each factor's effect with the other two held fixed.

# %% tags=["parameters"]
study = "pocket"  # a study under studies/
out = "published"  # the run folder, runs/<out>/; or published: results/<study>/

# %%
from IPython.display import Markdown

from mae_lib.charts.frames import table
from mae_lib.charts.grid import accuracy_by_images, design_map
from mae_lib.charts.renderer import show
from mae_lib.charts.scores import baselines_by_cell
from mae_lib.evaluation.gate import gate
from mae_lib.report.results import compare_cells, law_table
from mae_lib.report.verdicts import effects_sentence, gate_sentence
from mae_lib.scaling.effects import factor_signs
from mae_lib.study.load import study_from_namespace

# %%
plan, out = study_from_namespace(globals())
runs = compare_cells(plan, out)
print(f"{plan.name}: {runs.cell.nunique()} cells, status {runs.status.value_counts().to_dict()}")

# %% [markdown]
# ## The design
#
# Which cells exist, and which are holes.

# %%
show(design_map(runs), data=runs, name="design")

# %% [markdown]
# ## Accuracy by images, model and resolution

# %%
scored = runs[(runs.task == plan.law.task) & (runs.protocol == plan.law.protocol)]
show(accuracy_by_images(scored), data=scored, name="accuracy")

# %% [markdown]
# ## Beside the baselines

# %%
show(baselines_by_cell(scored), data=scored, name="baselines")

# %% [markdown]
# ## The gate
#
# The largest cell must beat the better of raw pixels and random initialisation by two standard
# errors, under each protocol.

# %%
verdicts = gate(runs)
table(verdicts)

# %% [markdown]
# ## Each factor's effect
#
# The mean change in top-1 from the lowest to the highest level of a factor, paired over all levels of the
# others, with a 95 % interval.

# %%
effects = factor_signs(law_table(plan, runs))
table(effects)

# %% [markdown]
# ## What we learned

# %%
Markdown(f"- {gate_sentence(verdicts)}\n- {effects_sentence(effects)}")

# %% [markdown]
# ## Limits
#
# One seed a cell: the intervals of single cells cover the draw of test images only. Resolution
# changes the patch along with it, so that every cell has as many tokens; its effect is that of
# detail inside a patch, not of more tokens.
