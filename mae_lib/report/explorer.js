/* The law explorer: sliders over the factors, every law's answer and interval, no network.

   Data come from mae_lib/report/explorer.py as JSON inside `.law-explorer`. The same file runs in
   node, where the tests compare its answers with those of mae_lib.scaling. */
"use strict";
(() => {
  const sum = (values) => values.reduce((a, b) => a + b, 0);
  const dot = (a, z) => sum(z.map((value, j) => a[j] * value));
  const logistic = (value) => 1 / (1 + Math.exp(-value));
  const softplus = (x) => Math.max(x, 0) + Math.log1p(Math.exp(-Math.abs(x)));

  /* c + sum_j b_j z_j + sum_jk b_jk z_j z_k, the pairs being those that the design could tell. */
  const surface = (p, z, law) => p[0] + dot(p.slice(1), z)
    + sum(law.pairs.map(([j, k], i) => p[1 + z.length + i] * z[j] * z[k]));
  const product = (p, z) => z.reduce((value, zj, j) => value * (1 + p[j + 1] * zj), p[0]);
  const share = (p, z, law) => law.chance + (1 - law.chance) * logistic(surface(p, z, law));

  /* -softplus(-t) + a softplus(t) = right, by Newton from the solution far from the bend. */
  function solveM4(right, power) {
    let t = right < 0 ? right : right / power;
    for (let i = 0; i < 50; i += 1) {
      const s = logistic(t);
      const step = (right + softplus(-t) - power * softplus(t)) / ((1 - s) + power * s);
      t += step;
      if (Math.abs(step) < 1e-13 * (1 + Math.abs(t))) { break; }
    }
    return t;
  }

  /* One function a law: parameters in the order of Law.names, centred logs of the law's factors. */
  const LAWS = {
    printed: product,
    log_product: product,
    log_additive: surface,
    log_bilinear: surface,
    logit_additive: share,
    logit_bilinear: share,
    logit_ceiling: (p, z, law) =>
      law.chance + (p[z.length + 1] - law.chance) * logistic(p[0] + dot(p.slice(1), z)),
    power_product: (p, z) => p[0] + p[1] * Math.exp(-dot(p.slice(2), z)),
    power_sum: (p, z) => {
      const m = z.length;
      return p[0] + sum(z.map((zj, j) => p[1 + j] * Math.exp(-p[1 + m + j] * zj)));
    },
    shifted_power: (p, z, law) => {
      const m = z.length;
      return p[0] + sum(z.map((zj, j) => {
        const at = law.shifted.indexOf(j), s = at < 0 ? 0 : Math.exp(p[1 + 2 * m + at]);
        return p[1 + j] * ((Math.exp(zj) + s) / (1 + s)) ** -p[1 + m + j];
      }));
    },
    kaplan: (p, z) => {
      const one = (Math.log(p[0]) - p[2] * z[0]) / p[3], two = Math.log(p[1]) / p[3] - z[1];
      const top = Math.max(one, two);
      return Math.exp(p[3] * (top + Math.log(Math.exp(one - top) + Math.exp(two - top))));
    },
    overtrain: (p, z) =>
      p[0] + p[1] * Math.exp(-2 * p[3] * z[0]) + p[2] * Math.exp(-2 * p[3] * z[1]),
    data_constrained: (p, z) => {
      const worth = p[p.length - 1], repeats = Math.exp(z[1]) - 1, others = z.slice(2);
      const gain = Math.log(1 + worth * (1 - Math.exp(-repeats / worth)));
      const logs = [z[0] + gain, ...others], m = logs.length;
      return p[0] + sum(logs.map((value, j) => p[1 + j] * Math.exp(-p[1 + m + j] * value)));
    },
    m4: (p, z) => p[0] + (p[1] - p[0]) * logistic(solveM4(p[3] - dot(p.slice(4), z), p[2])),
    bnsl: (p, z) => {
      const m = z.length, [turn, place, width] = p.slice(2 + m);
      const bend = softplus((z[0] - place) / width) - softplus(-place / width);
      return p[0] + p[1] * Math.exp(-dot(p.slice(2, 2 + m), z) - turn * width * bend);
    },
  };

  function evaluate(law, params, logs) {
    const z = law.columns.map((column, j) => logs[column] - law.centre[j]);
    const value = LAWS[law.name](params, z, law);
    return law.invert ? 1 - value : value;
  }

  /* Linear interpolation between order statistics, as numpy's default. */
  function quantile(sorted, share) {
    const place = share * (sorted.length - 1), below = Math.floor(place);
    const above = Math.min(below + 1, sorted.length - 1);
    return sorted[below] + (place - below) * (sorted[above] - sorted[below]);
  }

  /* rho by factor: distance beyond the data over the data's range, both in logs. */
  function distances(data, values) {
    return data.factors.map((factor, j) => {
      const low = Math.log(factor.min), high = Math.log(factor.max), at = Math.log(values[j]);
      return Math.max(at - high, low - at, 0) / (high - low);
    });
  }

  function answers(data, values) {
    const logs = values.map(Math.log), tail = (1 - data.level) / 2;
    return data.laws.map((law) => {
      const draws = law.draws.map((draw) => evaluate(law, draw, logs)).filter(Number.isFinite);
      draws.sort((a, b) => a - b);
      const interval = draws.length >= 20
        ? [quantile(draws, tail), quantile(draws, 1 - tail)] : [null, null];
      return { law: law.name, value: evaluate(law, law.params, logs),
               low: interval[0], high: interval[1] };
    });
  }

  const api = { LAWS, answers, distances, evaluate, quantile };
  if (typeof module !== "undefined") { module.exports = api; }
  if (typeof document === "undefined") { return; }

  const STEPS = 200;
  const element = (tag, attributes = {}, ...children) => {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) { made.setAttribute(name, value); }
    made.append(...children);
    return made;
  };

  function amount(value) {
    const names = [[1e12, " T"], [1e9, " B"], [1e6, " M"]];
    for (const [size, name] of names) {
      if (value >= size) { return Number((value / size).toPrecision(3)) + name; }
    }
    if (value >= 100) { return Math.round(value).toLocaleString("en"); }
    return String(Number(value.toPrecision(3)));
  }

  /* A model of another patch is no new size: less than half a per cent of the range is inside. */
  const NEAR = 0.005;
  const place = (factor, value) =>
    Math.log(value / factor.low) / Math.log(factor.high / factor.low);

  function control(factor, index, id, changed) {
    const name = `${id}-${index}`;
    const slider = element("input", {
      type: "range", id: name, min: 0, max: STEPS, step: 1, "aria-describedby": `${name}-where`,
    });
    const exact = element("input", {
      type: "text", inputmode: "decimal", "aria-label": `${factor.label}, exact value`,
    });
    const where = element("span", { class: "law-where", id: `${name}-where` });
    const track = element("span", { class: "law-data", "aria-hidden": "true" }, element("i"));
    const [from, to] = [place(factor, factor.min), place(factor, factor.max)];
    track.firstChild.style.left = `${100 * Math.max(from, 0)}%`;
    track.firstChild.style.width = `${100 * (Math.min(to, 1) - Math.max(from, 0))}%`;
    slider.addEventListener("input", () => {
      changed(index, factor.low * (factor.high / factor.low) ** (slider.value / STEPS));
    });
    exact.addEventListener("change", () => {
      const value = Number(exact.value.replaceAll(",", ""));
      changed(index, value > 0 && Number.isFinite(value) ? value : null);
    });
    const box = element("div", { class: "law-control" },
      element("label", { for: name }, factor.label), exact, slider, track, where);
    const show = (value, rho) => {
      slider.value = Math.round(STEPS * Math.min(1, Math.max(0, place(factor, value))));
      exact.value = value >= 1e5 ? value.toExponential(2).replace("+", "")
        : String(Number(value.toPrecision(4)));
      const text = rho < NEAR ? "inside the data" : `outside the data by ${rho.toFixed(2)} × its range`;
      where.textContent = text;
      where.classList.toggle("law-far", rho > 1);
      slider.setAttribute("aria-valuetext", `${amount(value)}, ${text}`);
    };
    return { box, show };
  }

  const digits = (data, value) => data.percent
    ? (100 * value).toFixed(1) : Number(value.toPrecision(4)).toString();
  const shown = (data, value) => digits(data, value) + (data.percent ? " %" : "");
  /* A long name may break after an underscore. */
  const breakable = (name) => name.split(/(?<=_)/).flatMap((part) => [part, element("wbr")]);

  function bar(answer, low, high) {
    const at = (value) => 100 * Math.min(1, Math.max(0, (value - low) / (high - low)));
    const box = element("span", { class: "law-bar", "aria-hidden": "true" });
    if (answer.low !== null) {
      const range = element("i", { class: "law-interval" });
      range.style.left = `${at(answer.low)}%`;
      range.style.width = `${at(answer.high) - at(answer.low)}%`;
      box.append(range);
    }
    const dot = element("i", { class: "law-dot" });
    dot.style.left = `${at(answer.value)}%`;
    box.append(dot);
    return box;
  }

  function table(data, found) {
    const values = found.flatMap((a) => [a.value, a.low ?? a.value, a.high ?? a.value]);
    const [low, high] = data.percent ? [0, 1] : [Math.min(...values), Math.max(...values)];
    const rows = found.map((answer) => {
      const impossible = data.bounded && (answer.value < 0 || answer.value > 1);
      const interval = answer.low === null ? "no interval"
        : `${digits(data, answer.low)} to ${shown(data, answer.high)}`;
      return element("tr", impossible ? { class: "law-impossible" } : {},
        element("th", { scope: "row" }, ...breakable(answer.law)),
        element("td", {}, shown(data, answer.value), impossible ? " (impossible)" : ""),
        element("td", {}, interval),
        element("td", { class: "law-bar-cell" }, bar(answer, low, high)));
    });
    const heads = ["Law", data.response, `${Math.round(100 * data.level)} % interval if it is true`];
    const head = element("tr", {}, ...heads.map((t) => element("th", { scope: "col" }, t)),
      element("td", { class: "law-bar-cell", "aria-hidden": "true" },
        data.percent ? element("span", { class: "law-scale" }, element("b", {}, "0 %"),
          element("b", {}, "100 %")) : ""));
    return element("table", { class: "law-table" },
      element("thead", {}, head), element("tbody", {}, ...rows));
  }

  function summary(data, values, found) {
    const rho = Math.max(...distances(data, values));
    const numbers = found.map((a) => a.value);
    const low = Math.min(...numbers), high = Math.max(...numbers);
    const verdict = rho < NEAR ? "Inside the data."
      : rho <= 1 ? `Outside the data by ${rho.toFixed(2)} × its range.`
      : `Outside the data by ${rho.toFixed(2)} × its range: nothing is calibrated beyond 1 ×, so the `
        + "spread between the laws is the answer, not a number.";
    return `The laws answer ${shown(data, low)} to ${shown(data, high)}. ${verdict}`;
  }

  function start(root, number) {
    const data = JSON.parse(root.querySelector("script[type='application/json']").textContent);
    const id = `law-explorer-${number}`, state = data.factors.map((factor) => factor.at);
    const said = element("p", { class: "law-said", "aria-live": "polite" });
    const place_ = element("div", { class: "table-box law-answers" });
    let waiting = 0;
    const draw = () => {
      const rho = distances(data, state), found = answers(data, state);
      controls.forEach((one, j) => one.show(state[j], rho[j]));
      place_.replaceChildren(table(data, found));
      // Spoken once a drag pauses, not at every step of it.
      clearTimeout(waiting);
      waiting = setTimeout(() => { said.textContent = summary(data, state, found); }, 150);
      root.dataset.drawn = String(Number(root.dataset.drawn ?? 0) + 1);
    };
    const controls = data.factors.map((factor, j) => control(factor, j, id, (index, value) => {
      if (value !== null) { state[index] = value; }
      draw();
    }));
    const buttons = data.points.map(({ name, at }) => {
      const button = element("button", { type: "button" }, name);
      button.addEventListener("click", () => { state.splice(0, state.length, ...at); draw(); });
      return button;
    });
    const form = element("div", { class: "law-form", role: "group", "aria-label": data.title },
      element("div", { class: "law-points" }, ...buttons), ...controls.map((one) => one.box));
    root.querySelector(".law-static")?.remove();
    root.append(form, said, place_);
    draw();
  }

  const begin = () => document.querySelectorAll(".law-explorer").forEach(start);
  if (document.readyState === "loading") { document.addEventListener("DOMContentLoaded", begin); }
  else { begin(); }
})();
