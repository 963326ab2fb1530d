"""Fits of public grids give values that were computed independently, with scipy.

Numbers 1 to 21 are those of the notes on these grids; sums of squares in points squared where the
response is an accuracy.
"""

import numpy as np
import pandas as pd
import pytest

from mae_lib.scaling.fit import Fit, fit_law
from mae_lib.scaling.least_squares import solve_linear
from mae_lib.scaling.objectives import Objective
from mae_lib.scaling.table import Table, check_table

CENTRE = np.log([50, 1.5e8, 300])
OWN, CLAIM = (20000, 2.5e9, 952), (5000, 522e9, 4096)


def orhan(grids, response: str = "acc1_max") -> Table:
    frame = pd.read_csv(grids / "orhan2023.csv")
    return check_table(frame, response=response, factors=("hours", "n_params", "res"))


def language(grids, name: str, response: str, rows=None, tokens: str = "n_tokens") -> Table:
    frame = pd.read_csv(grids / name)
    frame = frame if rows is None else frame[rows(frame)]
    return check_table(frame, response=response, factors=("n_params", tokens))


def uncentred(fit: Fit) -> dict[str, float]:
    """Return E, A, alpha, B, beta of a power sum in the units of the table."""
    at = dict(zip(fit.law.names(fit.table.factors), fit.params, strict=True))
    found = {"E": at["floor"]}
    for (scale, power), factor, centre in zip(
        (("A", "alpha"), ("B", "beta")), fit.factors, fit.centre, strict=True
    ):
        found[power] = at[f"exponent_{factor}"]
        found[scale] = at[f"part_{factor}"] * np.exp(found[power] * centre)
    return found


# Numbers 1 to 4 and 6 to 8, with the table of laws: k, SSE, AICc, own target, claim.
ORHAN = {
    "log_product": (4, 269.2317, 107.47, 60.9176, 97.4652),
    "log_additive": (4, 248.4027, 101.18, 53.21, 70.69),
    "log_bilinear": (6, 206.722, 91.62, 53.51, 74.32),
    "logit_additive": (4, 196.7851, 83.02, 58.8581, 78.6505),
    "logit_bilinear": (6, 162.002, 72.61, 53.93, 73.81),
    "logit_ceiling": (5, 194.4592, 84.44, 55.94, 69.68),
    "power_product": (5, 315.836, 122.27, 48.80, 59.39),
}


@pytest.mark.parametrize("name", ORHAN)
def test_orhans_grid_gives_sse_aicc_and_predictions(grids, name):
    k, sse, aicc, own, claim = ORHAN[name]
    fit = fit_law(orhan(grids), name, bootstrap=0, centre=CENTRE)
    assert fit.k == k
    assert fit.sse * 1e4 == pytest.approx(sse, rel=1e-5)
    # The criterion is of points squared in the notes: n ln 1e4 more than that of fractions.
    assert fit.aicc + fit.n * np.log(1e4) == pytest.approx(aicc, abs=0.01)
    assert 100 * fit.predict([OWN, CLAIM]) == pytest.approx([own, claim], rel=1.5e-4)


PARAMETERS = {
    "log_product": [0.261491, 0.080224, 0.082596, 0.239607],
    "log_additive": [0.2645383, 0.0218862, 0.0183872, 0.0733053],
    "logit_additive": [-1.0696296, 0.1182398, 0.1124533, 0.3489186],
    "logit_ceiling": [-0.7534025, 0.1306561, 0.1219653, 0.3961110, 0.8032817],
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_orhans_grid_gives_centred_parameters(grids, name):
    fit = fit_law(orhan(grids), name, bootstrap=0, centre=CENTRE)
    assert fit.params == pytest.approx(PARAMETERS[name], rel=1e-4)


def test_the_product_law_uncentred_has_factors_below_zero(grids):
    # Fact 25: the raw form is the same fit; its parameters follow from the centred ones.
    fit = fit_law(orhan(grids), "log_product", bootstrap=0, centre=CENTRE)
    brackets = 1 - fit.params[1:] * CENTRE
    raw = [fit.params[0] * brackets.prod(), *(fit.params[1:] / brackets)]
    assert raw == pytest.approx([0.0365108, 0.116916, -0.148832, -0.653471], rel=1e-4)


def test_orhans_pure_error_and_lack_of_fit(grids):
    # Number 9: the cell means leave the pure error.
    means = fit_law(orhan(grids), "cell_means", bootstrap=0)
    assert means.sse * 1e4 == pytest.approx(79.2257, rel=1e-5)
    assert means.n - means.k == 48
    fit = fit_law(orhan(grids), "log_product", bootstrap=0)
    assert fit.lack_of_fit["f"] == pytest.approx(4.428, rel=1e-3)
    assert fit.lack_of_fit["df"] == [26, 48]


def test_resolution_times_parameters_is_dropped_and_named_on_orhans_grid(grids):
    fit = fit_law(orhan(grids), "log_bilinear", bootstrap=0)
    assert fit.law.dropped == ("n_params x res is aliased: res varies at one n_params only",)
    assert fit.to_json()["dropped"] == list(fit.law.dropped)


def test_power_laws_end_at_their_bounds_on_orhans_grid_and_say_so(grids):
    # Fact 19: floors go to 0 and one exponent to its bound.
    fit = fit_law(orhan(grids), "power_sum", bootstrap=200)
    assert fit.at_bound == ("floor", "exponent_res")
    assert fit.to_json()["intervals"]["floor"] == [None, None]


def test_the_other_metrics_move_the_product_laws_claim(grids):
    # Facts 20 and 22.
    final = fit_law(orhan(grids, "acc1_final"), "log_product", bootstrap=0).predict([CLAIM])
    assert 100 * final == pytest.approx([105.55], abs=0.01)
    top5 = orhan(grids, "acc5_max")
    for name, own, claim in (
        ("log_product", 93.0, 132), ("log_additive", 85.9, 108), ("logit_additive", 81.6, 92.0)
    ):  # fmt: skip
        found = 100 * fit_law(top5, name, bootstrap=0).predict([OWN, CLAIM])
        assert found == pytest.approx([own, claim], rel=5e-3)


def chinchilla(grids, drop: int = 5) -> Table:
    def cut(frame: pd.DataFrame) -> pd.Series:
        return frame.loss <= frame.loss.nlargest(drop + 1).iloc[-1]

    return language(grids, "chinchilla_besiroglu2024.csv", "loss", cut)


# Numbers 13 and 14: objective, rows dropped, its least value, E, A, B, alpha, beta.
CHINCHILLA = {
    "huber": (5, 0.00101827402, 1.817218, 477.826, 2143.42, 0.347310, 0.367172),
    "log": (5, 0.0114618870, 1.86455, 593.32, 4875.64, 0.360253, 0.405883),
    "ls": (5, 0.0832038, 1.88281, 567.81, 7581.9, 0.357615, 0.427621),
    "huber, all rows": (0, 0.00182601, 1.89134, 495.73, 12845.6, 0.349313, 0.453049),
}


@pytest.mark.parametrize("case", CHINCHILLA)
def test_chinchillas_points_give_the_minimum_of_each_objective(grids, case):
    drop, least, *expected = CHINCHILLA[case]
    table = chinchilla(grids, drop)
    fit = fit_law(table, "power_sum", objective=case.split(",")[0], bootstrap=0)
    assert fit.n == 245 - drop
    assert fit.criterion == pytest.approx(least, rel=2e-6)
    found = uncentred(fit)
    assert [found[k] for k in ("E", "A", "B", "alpha", "beta")] == pytest.approx(expected, rel=1e-4)
    assert fit.starts["agreeing"] >= 10


def test_the_published_parameters_are_not_the_minimum(grids):
    # Number 15: a 6.17795598, b 7.64273236, e 0.59711196, alpha 0.34781303, beta 0.36585412,
    # printed by the notebook of arXiv 2404.10102 with all digits.
    table = chinchilla(grids)
    n, d = table.logs.T
    part_n, part_d = np.exp(6.17795598 - 0.34781303 * n), np.exp(7.64273236 - 0.36585412 * d)
    law = np.exp(0.59711196) + part_n + part_d
    loss = Objective("huber").terms(np.log(table.y), np.log(law))[0].sum() / 2
    assert loss == pytest.approx(0.001018645, rel=1e-6)
    assert loss > 0.00101827402


def test_centring_makes_chinchillas_fit_well_conditioned(grids):
    # Fact 40: 33 with logs centred, 220 without.
    table = chinchilla(grids)
    for centre, condition in ((None, 33), (np.zeros(2), 220)):
        fit = fit_law(table, "power_sum", objective="huber", bootstrap=0, centre=centre)
        assert fit.identifiability["condition"] == pytest.approx(condition, rel=5e-3)


# Numbers 16 to 18: training set, law, SSE, parameters by name.
GADRE = [
    ("c4_original", "power_sum", 0.4136038,
     {"E": 1.33729, "A": 84.387, "B": 117.914, "alpha": 0.231833, "beta": 0.212774}),
    ("c4_original", "overtrain", 0.4144780, {"eta": 0.109545, "floor": 1.29854}),
    ("rw_original", "power_sum", 0.3370320, {"E": 1.47988, "alpha": 0.202000, "beta": 0.244423}),
]  # fmt: skip


@pytest.mark.parametrize(("train_set", "name", "sse", "expected"), GADRE)
def test_gadres_runs_give_sse_and_parameters(grids, train_set, name, sse, expected):
    def rows(frame: pd.DataFrame) -> pd.Series:
        return frame.train_set == train_set

    table = language(grids, "gadre2024_overtraining.csv", "loss_c4_val", rows, tokens="tokens")
    fit = fit_law(table, name, bootstrap=0)
    assert fit.sse == pytest.approx(sse, rel=1e-6)
    plain = dict(zip(fit.law.names(table.factors), fit.params, strict=True))
    found = uncentred(fit) if name == "power_sum" else plain
    assert {key: found[key] for key in expected} == pytest.approx(expected, rel=1e-4)


def test_porians_tuned_runs_give_the_huber_minimum(grids):
    # Number 19.
    def rows(frame: pd.DataFrame) -> pd.Series:
        return frame.setting == "tuned/short/const"

    table = language(grids, "porian2024_isoflop.csv", "loss", rows)
    fit = fit_law(table, "power_sum", objective="huber", bootstrap=0)
    assert fit.n == 121
    assert fit.criterion == pytest.approx(0.00669324, rel=1e-6)
    found = uncentred(fit)
    assert [found[k] for k in ("E", "alpha", "beta")] == pytest.approx(
        [3.13076, 0.62981, 0.70847], rel=1e-4
    )


def test_openclips_error_is_a_power_of_compute(grids):
    # Number 20: log10(1 - acc1) on log10(GMAC x samples), all 29 models and the 11 of LAION-2B.
    frame = pd.read_csv(grids / "cherti2023_openclip.csv")
    compute = np.log10(frame.gmacs_per_sample * frame.samples_seen).to_numpy()
    error = np.log10(1 - frame.imagenet1k_acc1.to_numpy())
    wide = (frame.upstream == "LAION-2B").to_numpy()
    weights = np.stack([np.ones(29), wide.astype(np.float64)])
    design = np.stack([np.ones(29), compute], 1)
    found = solve_linear(design, np.broadcast_to(error, (2, 29)), weights)
    assert wide.sum() == 11
    assert found.params[0] == pytest.approx([0.69517, -0.10125], rel=1e-4)
    assert found.params[1, 1] == pytest.approx(-0.11446, rel=1e-4)


def test_a_floor_predicts_the_last_point_of_a_translation_curve(grids):
    # Number 21: the power law by least squares in logs, the floor law by least squares.
    frame = pd.read_csv(grids / "nmt_alabdulmohsin2022.csv")
    frame = frame[frame.arch == "6Enc,6Dec"]
    train, last = frame[frame.split == "train"], frame[frame.split == "test"]
    logs = np.log(train.sentences.to_numpy())
    design = np.stack([np.ones(len(logs)), logs], 1)
    line = solve_linear(
        design, np.log(train.log_perplexity.to_numpy())[None], np.ones((1, len(logs)))
    )
    power = np.exp(line.params[0] @ [1, np.log(5.12e8)])
    assert power == pytest.approx(0.2618, rel=2e-4)
    table = check_table(train, response="log_perplexity", factors=("sentences",), kind="loss")
    floor = fit_law(table, "power_sum", bootstrap=0).predict([[5.12e8]])
    assert floor == pytest.approx([0.3185], rel=1e-3)
    assert last.log_perplexity.iloc[0] == pytest.approx(0.3402, abs=5e-5)
