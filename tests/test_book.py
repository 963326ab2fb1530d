"""The committed book builds strictly, opens offline, and is readable in a real browser."""

import contextlib
import re
import shutil
from pathlib import Path

import pytest

from mae_lib.errors import MaeError
from mae_lib.report.build import build
from mae_lib.report.pages import substitutions
from mae_lib.study.paths import root

pytestmark = pytest.mark.pocket


def copy_of_the_project(folder: Path) -> Path:
    for name in ("book", "notebooks", "results"):
        shutil.copytree(root() / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("_config.yml", "_toc.yml"):
        shutil.copy(root() / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def html(tmp_path_factory):
    folder = tmp_path_factory.mktemp("book")
    (folder / "source").mkdir()
    return build(copy_of_the_project(folder / "source"), folder / "out").parent


def pages(html):
    return [p for p in sorted(html.rglob("*.html")) if "_static" not in p.parts]


def test_every_page_of_the_table_of_contents_is_there(html):
    names = re.findall(r"(?:file|root): (\S+)", (root() / "_toc.yml").read_text())
    assert len(names) == 19
    for name in names:
        assert (html / f"{name}.html").is_file()


def test_no_page_loads_anything_from_a_network(html):
    loads = re.compile(
        r"<(?:script|img|iframe|source)[^>]+src=[\"'](?:https?:)?//|"
        r"<link[^>]+rel=[\"'](?:stylesheet|preload|icon)[\"'][^>]+href=[\"']https?://"
    )
    for page in pages(html):
        assert not loads.search(page.read_text()), page.name


def test_every_figure_has_a_text_alternative_and_every_chart_its_data(html):
    charts = 0
    for page in pages(html):
        text = page.read_text()
        for image in re.findall(r"<img[^>]*>", text):
            assert re.search(r'alt="[^"]+"', image), (page.name, image[:80])
        found = text.count('<div class="vega-chart">')
        assert text.count('download="') >= found
        charts += found
    assert charts >= 8


def test_a_missing_number_fails_the_build(tmp_path):
    source = copy_of_the_project(tmp_path)
    # One page is enough; the numbers are those of all results.
    (source / "_toc.yml").write_text("format: jb-book\nroot: book/page\n")
    (source / "book" / "page.md").write_text("# A page\n\n{{ no_such_number }}\n")
    with pytest.raises(MaeError, match="no_such_number"):
        build(source, tmp_path / "out")


def test_text_from_results_is_escaped(tmp_path):
    import pandas as pd

    from mae_lib.charts.frames import table_html

    assert "<script>" not in table_html(pd.DataFrame({"name": ["<script>alert(1)</script>"]}))
    assert all(isinstance(v, str) and v for v in substitutions(root()).values())


def test_pages_open_from_the_file_system_in_both_themes_and_at_360_pixels(html):
    browser_path = shutil.which("chromium") or shutil.which("google-chrome")
    if browser_path is None:
        pytest.skip("no Chromium on this machine: pages are not opened in a browser")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play, contextlib.ExitStack() as stack:
        browser = play.chromium.launch(
            executable_path=browser_path,
            args=["--no-sandbox", "--disable-background-networking", "--disable-gpu"],
        )
        stack.callback(browser.close)
        page = browser.new_page()
        problems: list[str] = []
        page.on("console", lambda m: problems.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda e: problems.append(str(e)))
        page.on(
            "request",
            lambda r: (
                problems.append(r.url)
                if not r.url.startswith(("file:", "data:", "blob:"))
                else None
            ),
        )
        for path in pages(html):
            if path.name in ("search.html", "genindex.html", "index.html"):
                continue
            page.set_viewport_size({"width": 1280, "height": 900})
            page.goto(path.as_uri())
            charts = page.locator(".vega-chart").count()
            for theme in ("light", "dark"):
                page.set_viewport_size({"width": 1280, "height": 900})
                page.evaluate(f"document.documentElement.dataset.theme = '{theme}'")
                if charts:
                    page.wait_for_function(
                        f"document.querySelectorAll('.vega-live svg').length == {charts}"
                    )
                page.set_viewport_size({"width": 360, "height": 800})
                width = page.evaluate("document.documentElement.scrollWidth")
                assert width <= 360, (path.name, width)
        assert not problems, problems[:3]
