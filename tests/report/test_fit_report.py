"""The report of a fit is one page that loads nothing, with the checklist filled in."""

import re
import shutil

import numpy as np
import pandas as pd
import pytest

from mae_lib.report.checklist import UNKNOWN, checklist, what_would_change
from mae_lib.report.fit_report import write_report
from mae_lib.scaling.fit import fit_laws
from mae_lib.scaling.predict import predict_law
from mae_lib.scaling.read import read_table
from mae_lib.scaling.table import check_table
from mae_lib.study.paths import root

AT = {"hours": 20_000, "n_params": 2.5e9, "res": 952}
LAWS = ("log_product", "log_bilinear", "logit_additive", "power_product")


@pytest.fixture(scope="module")
def fits():
    table = read_table(root() / "results" / "grids" / "orhan2023.csv")
    return fit_laws(table, LAWS, bootstrap=100)


@pytest.fixture(scope="module")
def page(fits, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    path = write_report(fits, folder / "out.html", targets={"the target": AT})
    return path


def test_the_page_loads_nothing_and_has_every_section(page):
    text = page.read_text()
    assert not re.search(r"<(?:script|img|link|iframe)[^>]+(?:src|href)=[\"'](?!data:)", text)
    heads = re.findall(r"<h2>(.*?)</h2>", text)
    assert heads == [
        "The answer", "Ask the laws elsewhere", "The laws", "Held out",
        "The design, and the laws along each factor", "Parameters",
        "What would change the answer", "Checklist",
    ]  # fmt: skip
    for image in re.findall(r"<img[^>]*>", text):
        assert re.search(r'alt="[^"]+"', image)


def test_the_answer_is_what_the_laws_say(page, fits):
    text = page.read_text()
    values = [100 * predict_law(fit, AT)["value"] for fit in fits]
    assert f"{min(values):.3g} % to {max(values):.3g} %" in text
    assert "by the stack" in text


def test_the_checklist_is_filled_from_the_table_and_its_sidecar(page, fits):
    text = page.read_text()
    assert "eminorhan/humanlike-vits" in text
    assert "licences/orhan2023.txt" in text
    rows = checklist(fits, {"versions": {"numpy": np.__version__}}).set_index("asked").answer
    assert rows["where they are from"] == UNKNOWN
    assert rows["repeats"].startswith("48 of 78")
    assert "subset: 13 clusters" in rows["which runs share data"]
    assert "log_product p = 4" in rows["lack of fit against repeats"]


def test_what_would_change_names_law_distance_levels_aliases_and_tuning(fits):
    answers = {"the target": [predict_law(fit, AT) for fit in fits]}
    said = what_would_change(fits, answers)
    assert said[0].startswith("Another law: at the target they answer")
    text = "\n".join(said)
    for words in ("ranges outside the data in res", "A third level of res", "aliased", "lack of fit",
                  "best at their last epoch"):  # fmt: skip
        assert words in text


def test_a_table_of_losses_without_repeats_or_targets_has_a_report(tmp_path):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        [{"n": n, "d": d} for n in (1e7, 1e8, 1e9) for d in (1e9, 1e10, 1e11, 1e12)]
    )
    frame["loss"] = 1.7 + 400 * frame.n**-0.34 + 400 * frame.d**-0.28
    frame["loss"] *= np.exp(0.003 * rng.normal(size=len(frame)))
    table = check_table(frame, response="loss", factors=("n", "d"))
    fits = fit_laws(table, ("power_sum", "log_additive"), bootstrap=50)
    text = write_report(fits, tmp_path / "loss.html").read_text()
    assert "twice the largest run" in text
    assert "Repeated cells: without them" in text
    assert "Not a number" not in text
    assert "nan" not in re.sub(r"data:[^\"]*", "", text).lower().replace("nanom", "")


def test_the_page_opens_in_a_browser_without_an_error_at_360_pixels(page):
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium on this machine: the report is not opened in a browser")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        chromium = play.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        try:
            for scheme in ("light", "dark"):
                tab = chromium.new_page(viewport={"width": 360, "height": 800}, color_scheme=scheme)
                problems = []
                tab.on("pageerror", lambda error, into=problems: into.append(str(error)))
                tab.on("request", lambda r, into=problems: (
                    None if r.url.startswith(("file:", "data:")) else into.append(r.url)))  # fmt: skip
                tab.goto(page.as_uri())
                assert tab.locator(".law-table tbody tr").count() == len(LAWS)
                assert tab.evaluate("document.documentElement.scrollWidth") <= 360
                assert problems == []
        finally:
            chromium.close()
