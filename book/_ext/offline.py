"""Everything that a page loads lies in the book, and every number in its prose comes from results.

Charts: Vega from vl-convert, written into the book at build time. Maths: MathML, no script.
Numbers, sentences and tables: `{{ name }}`, from mae_lib.report.pages; an unknown name is a warning,
which a strict build turns into an error.
"""

import html
from pathlib import Path

import vl_convert
from latex2mathml.converter import convert

from mae_lib.report.explorer import SCRIPT, STYLE
from mae_lib.report.pages import substitutions

BOOT = """
window.addEventListener("DOMContentLoaded", () => {
  const dark = () => document.documentElement.dataset.theme === "dark";
  const draw = () => document.querySelectorAll(".vega-chart").forEach((box) => {
    const spec = JSON.parse(box.querySelector("script[type='application/json']").textContent);
    const image = box.querySelector("img");
    let live = box.querySelector(".vega-live");
    if (!live) {
      live = document.createElement("div");
      live.className = "vega-live";
      live.setAttribute("role", "img");
      live.setAttribute("aria-label", image.alt);
      box.append(live);
    }
    const options = {renderer: "svg", actions: false, ...(dark() ? {theme: "dark"} : {})};
    if (dark()) {
      // The last category is black, which a dark page would swallow.
      const category = (spec.config?.range?.category ?? []).map((c) => c === "#000000" ? "#c9ced6" : c);
      spec.config = {...spec.config, background: "transparent", range: {...spec.config?.range, category}};
    }
    vegaEmbed(live, spec, options).then(() => { image.hidden = true; });
  });
  draw();
  new MutationObserver(draw).observe(document.documentElement, {attributeFilter: ["data-theme"]});
});
"""


def _write_assets(app) -> None:
    if app.builder.format != "html":
        return
    folder = Path(app.outdir) / "_static"
    folder.mkdir(parents=True, exist_ok=True)
    # The bundle declares short names at top level, and so does the theme: keep them inside.
    bundle = "(() => {" + vl_convert.javascript_bundle() + "})();"
    (folder / "vega.js").write_text(bundle, encoding="utf-8")
    (folder / "charts.js").write_text(BOOT, encoding="utf-8")
    for source in (SCRIPT, STYLE):
        (folder / source.name).write_text(source.read_text(encoding="utf-8"), encoding="utf-8")


def _add_scripts(app, page, template, context, doctree) -> None:
    if 'class="vega-chart"' in (context.get("body") or ""):
        app.add_js_file("vega.js")
        app.add_js_file("charts.js")
    if 'class="law-explorer"' in (context.get("body") or ""):
        app.add_js_file(SCRIPT.name)
        app.add_css_file(STYLE.name)


def _substitute(app, config) -> None:
    config.myst_substitutions = {**config.myst_substitutions, **substitutions(Path(app.confdir))}


def _visit_inline(translator, node) -> None:
    from docutils import nodes

    translator.body.append(convert(node.astext()))
    raise nodes.SkipNode


def _visit_display(translator, node) -> None:
    from docutils import nodes

    text = convert(node.astext(), display="block")
    label = f' id="{html.escape(node["ids"][0])}"' if node.get("ids") else ""
    translator.body.append(f'<div class="math-display"{label}>{text}</div>')
    raise nodes.SkipNode


def setup(app):
    app.connect("config-inited", _substitute, priority=100)
    app.connect("builder-inited", _write_assets)
    app.connect("html-page-context", _add_scripts)
    app.add_html_math_renderer("mathml", (_visit_inline, None), (_visit_display, None))
    app.add_css_file("study.css")
    return {"parallel_read_safe": True, "parallel_write_safe": True}
