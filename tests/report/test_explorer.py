"""The explorer's script answers as the library does, and works by keyboard, in both themes."""

import contextlib
import json
import shutil
import subprocess

import numpy as np
import pandas as pd
import pytest

from mae_lib.report.explorer import DRAWS, SCRIPT, STYLE, explorer_data, explorer_html, known_laws
from mae_lib.scaling.fit import fit_laws
from mae_lib.scaling.laws import LAWS, usable_laws
from mae_lib.scaling.predict import distances
from mae_lib.scaling.table import check_table
from mae_lib.study.paths import root

FACTORS = ("hours", "n_params", "res")
POINTS = {
    "largest run": {"hours": 5000, "n_params": 6.32e8, "res": 476},
    "the claim": {"hours": 5000, "n_params": 5.22e11, "res": 4096},
}
# Run the very file in node: points in, every law's answers out.
NODE = """
const fs = require("fs");
const explorer = require(process.argv[1]);
const asked = JSON.parse(fs.readFileSync(0, "utf8"));
const found = asked.points.map((p) => ({
  answers: explorer.answers(asked.data, p), rho: explorer.distances(asked.data, p)}));
console.log(JSON.stringify(found));
"""


@pytest.fixture(scope="module")
def fits():
    frame = pd.read_csv(root() / "results" / "grids" / "orhan2023.csv")
    table = check_table(frame, response="acc1_max", factors=FACTORS, clusters="subset")
    names = [n for n in usable_laws(table)[0] if n in known_laws()]
    return fit_laws(table, names, bootstrap=DRAWS)


@pytest.fixture(scope="module")
def data(fits):
    return explorer_data(fits, POINTS)


def browser_path():
    return shutil.which("chromium") or shutil.which("google-chrome")


@contextlib.contextmanager
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        found = play.chromium.launch(
            executable_path=browser_path(),
            args=["--no-sandbox", "--disable-background-networking", "--disable-gpu"],
        )
        try:
            yield found
        finally:
            found.close()


def ask(data, points):
    """Let the script answer: in node, else in Chromium."""
    if node := shutil.which("node"):
        given = json.dumps({"data": data, "points": points})
        found = subprocess.run(
            [node, "-e", NODE, str(SCRIPT)], input=given, capture_output=True, text=True, check=True
        )
        return json.loads(found.stdout)
    if browser_path() is None:
        pytest.skip("neither node nor Chromium on this machine: the explorer's script is not run")
    with browser() as chromium:
        page = chromium.new_page()
        page.evaluate("globalThis.module = {}")
        page.add_script_tag(content=SCRIPT.read_text())
        return page.evaluate(
            "([data, points]) => points.map((p) => ({answers: module.exports.answers(data, p), "
            "rho: module.exports.distances(data, p)}))",
            [data, points],
        )


def test_the_script_answers_as_the_library_at_fifty_random_points(fits, data):
    rng = np.random.default_rng(0)
    low, high = ([np.log(f[k]) for f in data["factors"]] for k in ("low", "high"))
    points = np.exp(rng.uniform(low, high, (50, 3)))
    found = ask(data, points.tolist())
    for number, fit in enumerate(fits):
        answers = [one["answers"][number] for one in found]
        assert {a["law"] for a in answers} == {fit.law.name}
        assert [a["value"] for a in answers] == pytest.approx(fit.predict(points), rel=1e-9)
        draws = fit.draws_at(points)[:DRAWS]
        quantiles = np.nanquantile(np.where(np.isfinite(draws), draws, np.nan), [0.025, 0.975], 0)
        # draws are embedded with six digits
        assert [a["low"] for a in answers] == pytest.approx(quantiles[0], rel=2e-3, abs=2e-4)
        assert [a["high"] for a in answers] == pytest.approx(quantiles[1], rel=2e-3, abs=2e-4)


def test_the_script_measures_distance_as_the_library(fits, data):
    points = [[5000, 5.22e11, 4096], [0.1, 1e6, 100], [50, 1e8, 300]]
    for one, point in zip(ask(data, points), points, strict=True):
        expected = distances(fits[0], dict(zip(FACTORS, point, strict=True)))
        assert one["rho"] == pytest.approx([expected[f] for f in FACTORS], abs=1e-12)


def test_the_script_knows_every_law_that_fits_the_grid(fits, data):
    table = fits[0].table
    # a mean for each cell has no value away from the cells
    assert set(usable_laws(table)[0]) - known_laws() <= {"cell_means"}
    assert set(LAWS) - known_laws() == {"cell_means"}
    assert data["left_out"] == []


def test_the_data_are_small_and_hold_no_mark_that_ends_a_script(fits, data):
    text = explorer_html(data, fits)
    assert len(text) < 400_000
    assert text.count("</script>") == 1
    assert "largest run" in text
    assert "http" not in SCRIPT.read_text() + STYLE.read_text()


def page_of(folder, fits, data):
    path = folder / "explorer.html"
    path.write_text(
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport "
        f"content='width=device-width'><title>Laws</title><style>{STYLE.read_text()}"
        ".table-box {overflow-x: auto}</style>"
        f"{explorer_html(data, fits)}<script>{SCRIPT.read_text()}</script>"
    )
    return path


def test_sliders_have_labels_move_by_keyboard_and_mark_what_is_outside(tmp_path, fits, data):
    if browser_path() is None:
        pytest.skip("no Chromium on this machine: the explorer is not opened in a browser")
    with browser() as chromium:
        page = chromium.new_page(viewport={"width": 360, "height": 800})
        problems = []
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.goto(page_of(tmp_path, fits, data).as_uri())
        slider = page.get_by_label("Resolution (pixels a side)", exact=True)
        assert page.get_by_role("slider").count() == 3
        assert "inside the data" in slider.get_attribute("aria-valuetext")
        before = page.locator(".law-answers").inner_text()
        slider.focus()
        page.keyboard.press("End")
        assert "outside the data by" in slider.get_attribute("aria-valuetext")
        assert page.locator(".law-answers").inner_text() != before
        page.get_by_role("button", name="the claim").press("Enter")
        page.wait_for_function("document.querySelector('.law-said').textContent.includes('2.86')")
        assert page.locator(".law-where.law-far").count() == 2
        assert page.locator(".law-table tbody tr").count() == len(fits)
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        exact = page.get_by_label("Parameters (N), exact value")
        exact.fill("nonsense")
        exact.press("Enter")
        assert exact.input_value() == "5.22e11"
        assert not problems


# Parameters at which each law of three factors (two, for those that take two) is not degenerate.
SHAPES = {
    "printed": [0.3, 0.1, 0.2],
    "log_product": [0.3, 0.1, 0.2, -0.1],
    "log_additive": [0.3, 0.1, 0.2, -0.1],
    "log_bilinear": [0.3, 0.1, 0.2, -0.1, 0.02, -0.03, 0.05],
    "logit_additive": [-1.0, 0.1, 0.2, -0.1],
    "logit_bilinear": [-1.0, 0.1, 0.2, -0.1, 0.02, -0.03, 0.05],
    "logit_ceiling": [-1.0, 0.1, 0.2, -0.1, 0.8],
    "power_product": [0.1, 0.6, 0.3, 0.2, 0.1],
    "power_sum": [0.1, 0.3, 0.2, 0.1, 0.3, 0.2, 0.1],
    "shifted_power": [0.1, 0.3, 0.2, 0.1, 0.3, 0.2, 0.1, 0.5, -9.0, 2.0],
    "kaplan": [0.4, 0.3, 0.1, 0.2],
    "data_constrained": [0.1, 0.3, 0.2, 0.3, 0.2, 4.0],
    "overtrain": [0.1, 0.3, 0.2, 0.1],
    "m4": [0.1, 0.95, 0.7, 0.2, 0.3, 0.2, 0.1],
    "bnsl": [0.1, 0.5, 0.3, 0.2, 0.1, -0.4, 0.5, 0.3],
}


@pytest.mark.parametrize("name", SHAPES)
def test_each_law_alone_is_computed_as_the_library_computes_it(name):
    params = np.array(SHAPES[name])
    m = 2 if name in ("printed", "kaplan", "overtrain") else 3
    z = np.random.default_rng(1).normal(size=(20, m)) * 1.5
    if name == "data_constrained":
        z[:, 1] = np.abs(z[:, 1])  # ln epochs
    law = {
        "name": name, "columns": list(range(m)), "centre": [0.0] * m, "invert": False, "chance": 0.0,
        "pairs": [[0, 1], [0, 2], [1, 2]] if "bilinear" in name else [], "shifted": [0, 1, 2],
        "params": params.tolist(), "draws": [],
    }  # fmt: skip
    factors = [{"min": 0.5, "max": 2.0}] * m
    found = ask({"laws": [law], "factors": factors, "level": 0.95}, np.exp(z).tolist())
    values = [one["answers"][0]["value"] for one in found]
    assert values == pytest.approx(LAWS[name].evaluate(params, z)[0], rel=1e-9)
    assert found[0]["answers"][0]["low"] is None


def test_every_law_that_the_script_knows_is_compared():
    assert set(SHAPES) == known_laws()
