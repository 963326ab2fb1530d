"""Tables are checked before anything is fitted: one line that names column and row, or a note."""

import numpy as np
import pandas as pd
import pytest
from law_tables import FACTORS, law_grid, law_table, orhan

from mae_lib.errors import FitError
from mae_lib.scaling.table import check_table


def changed(column: str, row: int, value: object):
    def change(frame: pd.DataFrame) -> pd.DataFrame:
        frame = frame.astype({column: object})
        frame.loc[row, column] = value
        return frame

    return change


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda f: f.drop(columns="images"), "no column 'images'"),
        (lambda f: f.rename(columns={"images": "image"}), "did you mean 'image'"),
        (lambda f: f.assign(images=0), r"images: row 2: must be a number above 0.*\+11 more rows"),
        (changed("images", 4, -8), "images: row 6: must be a number above 0.*got -8$"),
        (changed("resolution", 3, np.nan), "resolution: row 5: .*an empty value"),
        (changed("params_encoder", 0, "big"), "params_encoder: row 2: .*got 'big'$"),
        (changed("params_encoder", 0, np.inf), "params_encoder: row 2: .*got inf$"),
        (lambda f: f.assign(images=5), "images: never varies"),
        (lambda f: f.assign(top1="x"), "must be a number, got 'x'"),
        (lambda f: f.assign(top1=np.nan), "top1: row 2: must be a number, got an empty value"),
        (lambda f: f.assign(top1=f.top1 * 1e4), "lies in 0 to 100"),
        (changed("top1", 7, 101.0), "top1: row 9: as percent an accuracy lies in 0 to 100"),
        (changed("top1", 7, 1.2), "top1: row 9: as fraction an accuracy lies in 0 to 1, got 1.2"),
        (changed("top1", 7, -0.1), "top1: row 9: .*got -0.1"),
        (lambda f: f.iloc[:1], "at least 2 rows"),
        (lambda f: f.iloc[:0], "at least 2 rows are needed, got 0"),
        (lambda f: pd.concat([f, f.iloc[[3]]], ignore_index=True), "row 14 repeats row 5"),
    ],
)
def test_a_table_that_cannot_be_fitted_is_one_line_that_names_column_and_row(change, says):
    with pytest.raises(FitError, match=says) as caught:
        law_table(change(law_grid(0.01)))
    assert "\n" not in str(caught.value)


def test_rows_of_a_selection_keep_the_numbers_of_the_file():
    frame = changed("images", 9, 0)(law_grid(0.01))
    with pytest.raises(FitError, match="images: row 11"):
        law_table(frame.iloc[5:])
    with pytest.raises(FitError, match="images: row 10"):
        law_table(frame, first_row=1)


def test_percent_and_fraction_are_recognised_and_said():
    frame = law_grid(0.001)
    fraction, percent = law_table(frame), law_table(frame.assign(top1=100 * frame.top1))
    assert (fraction.scale, percent.scale) == (1.0, 100.0)
    np.testing.assert_allclose(percent.y, fraction.y, rtol=1e-12)
    assert any("read as percent" in note for note in percent.notes)
    assert any("read as fraction" in note for note in fraction.notes)


def test_a_fraction_among_percents_is_refused_unless_the_unit_is_given():
    frame = law_grid(0.001)
    percent = frame.assign(top1=100 * frame.top1)
    mixed = changed("top1", 6, float(frame.top1[6]))(percent)
    with pytest.raises(FitError, match=r"top1: row 8: 0\.\d+ looks like a fraction among percents"):
        law_table(mixed)
    assert law_table(mixed, unit="percent").scale == 100


def test_small_percents_that_follow_the_factors_are_percents_and_are_counted():
    frame = law_grid(0)
    z = np.log(frame.images / 80)
    table = law_table(frame.assign(top1=0.5 * np.exp(0.9 * z) + 1e-3 * np.arange(12)))
    assert table.scale == 100
    assert any("values at most 1 are read as percent" in note for note in table.notes)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("loss_c4_val", "loss"),
        ("log_perplexity", "loss"),
        ("test_loss_min", "loss"),
        ("err46", "error"),
        ("error", "error"),
        ("acc1_max", "accuracy"),
        ("flickr_t2i_r5", "accuracy"),
        ("outcome", "accuracy"),
    ],
)
def test_the_kind_is_taken_from_the_name_and_said(name, kind):
    frame = law_grid(0.001).rename(columns={"top1": name})
    table = check_table(frame, response=name, factors=FACTORS)
    assert table.kind == kind
    assert any(note.startswith(f"{name}: taken as") for note in table.notes)
    given = check_table(frame, response=name, factors=FACTORS, kind="error")
    assert given.kind == "error"
    assert not any("taken as" in note for note in given.notes)


def test_a_loss_keeps_its_unit_and_must_be_above_zero():
    frame = law_grid(0.001)
    table = law_table(frame.assign(top1=20 * frame.top1), kind="loss")
    np.testing.assert_allclose(table.y, 20 * frame.top1)
    with pytest.raises(FitError, match="top1: row 3: a loss must be above 0, got 0"):
        law_table(changed("top1", 1, 0.0)(frame), kind="loss")
    with pytest.raises(FitError, match="a loss has its own unit"):
        law_table(frame, kind="loss", unit="percent")


def notes_of(frame, **options) -> str:
    return "\n".join(law_table(frame, **options).notes)


def test_two_levels_one_run_a_cell_and_collinear_factors_are_notes():
    frame = law_grid(0.01)
    assert "resolution: two levels (16 and 32)" in notes_of(frame)
    assert "one run a cell" in notes_of(frame)
    assert "one run a cell" not in notes_of(law_grid(0.01, repeats=2))
    together = frame.assign(resolution=frame.params_encoder / 1e4 * (1 + 0.01 * frame.index))
    assert "params_encoder and resolution vary together (correlation of logs 0.99" in notes_of(
        together
    )
    assert "vary together" not in notes_of(frame)


def test_settings_that_move_with_a_factor_are_named_with_their_values():
    frame = law_grid(0.01)
    moved = frame.assign(lr=np.where(frame.resolution > 16, 1e-4, 3e-4))
    assert "lr changes with resolution (0.0003 at 16, 0.0001 at 32)" in notes_of(moved)
    assert "lr" not in notes_of(frame.assign(lr=1e-4))
    assert "lr changes" not in notes_of(frame.assign(lr=[1e-4, 2e-4, 3e-4] * 4))


def test_points_of_a_learning_curve_are_named():
    steps = np.tile(2.0 ** np.arange(10), 4)
    sizes = np.repeat([1e5, 4e5, 2e6, 9e6], 10)
    frame = pd.DataFrame({"steps": steps, "size": sizes, "run": np.repeat(list("abcd"), 10)})
    frame["acc"] = 0.1 + 0.05 * np.log(steps) + 0.01 * np.log(sizes)
    options = {"response": "acc", "factors": ("steps", "size")}
    assert any("4 sets of 10 to 10 rows" in n for n in check_table(frame, **options).notes)
    clustered = check_table(frame, **options, clusters="run")
    assert not any("sets of" in n for n in clustered.notes)
    assert any("4 clusters are fewer than 8" in n for n in clustered.notes)


def test_clusters_must_be_labels_and_more_than_one():
    frame = law_grid(0.01).assign(subset=list("abcabcabcabc"))
    assert law_table(frame, clusters="subset").cluster_codes.tolist()[:4] == [0, 1, 2, 0]
    with pytest.raises(FitError, match="subset: one cluster only"):
        law_table(frame.assign(subset="a"), clusters="subset")
    with pytest.raises(FitError, match="subset: row 4: must be a label"):
        law_table(changed("subset", 2, None)(frame), clusters="subset")


def test_cells_are_equal_factors_unless_other_columns_are_named():
    frame = law_grid(0.01, repeats=2)
    assert law_table(frame).cell_codes.tolist()[:6] == [0, 0, 1, 1, 2, 2]
    named = law_table(frame, cells=("images",))
    assert named.cell_codes.max() == 2


def test_the_public_grid_is_described_in_notes(grids):
    table = orhan(grids, clusters="subset")
    notes = "\n".join(table.notes)
    assert table.cell_codes.max() + 1 == 30
    assert table.cluster_codes.max() + 1 == 13
    for said in (
        "read as percent, its largest value is 44.114",
        "res: two levels",
        "acc1_final stands beside it",
        "res 476: 9 of 13 runs are best at their last epoch",
        "epochs changes with res (50 at 224, 10 at 448, 8 at 476)",
        "finetune_lr changes with res",
    ):
        assert said in notes
