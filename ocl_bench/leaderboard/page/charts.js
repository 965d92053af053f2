// Charts of both kinds of page, by Vega-Lite, and the choice of light or dark.
"use strict";

// Colours that colour-blind readers can tell apart (Okabe and Ito), as in the suite's other figures; lighter on black.
const PALETTE = {
  light: ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#999999", "#8a6d00"],
  dark: ["#56B4E9", "#ff8f4d", "#4fcf9f", "#e3a3c8", "#f0c04a", "#9db8ff", "#b5bcc6", "#c9b36a"],
};
// Subset → its place in the palette.
const SUBSETS = { x0_aliases: 3, d1_cons_qa: 0, d2_incons_qa: 1, qa_only: 2, qa_unreplaced: 3, d1_cons: 0, d2_cons: 1, d3_cons: 4, unseen: 6 };

function palette() { return PALETTE[isDark() ? "dark" : "light"]; }

function isDark() {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

function draw(id, spec) {
  const ink = isDark() ? "#c9d0d9" : "#3b434e";
  const line = isDark() ? "#343b45" : "#dde1e6";
  const axis = { labelColor: ink, titleColor: ink, gridColor: line, domainColor: line, tickColor: line, labelLimit: 260 };
  const config = {
    background: null, font: "system-ui, Liberation Sans, sans-serif", view: { stroke: null },
    axis, legend: { labelColor: ink, titleColor: ink }, header: { labelColor: ink, titleColor: ink },
  };
  const place = document.getElementById(id);
  return vegaEmbed(place, { $schema: "https://vega.github.io/schema/vega-lite/v6.json", config, ...spec },
    { actions: false, renderer: "svg" });
}

const ZERO = { mark: { type: "rule", strokeDash: [3, 3], color: "#8a929c" }, encoding: {} };

function drawForest(rows, gap, title) {
  const interval = [
    { field: "model", title: "model" }, { field: "mean", format: "+.3f", title: gap },
    { field: "low", format: "+.3f", title: "from" }, { field: "high", format: "+.3f", title: "to" },
    { field: "detectable", format: ".3f", title: "detectable" }, { field: "place", title: "place" },
    { field: "above", title: "clearly above" }, { field: "below", title: "clearly below" },
    { field: "seeds", title: "seeds" }, { field: "n", title: "questions" },
  ];
  const y = { field: "label", type: "nominal", sort: rows.map((row) => row.label), title: null };
  const family = { field: "family", type: "nominal", scale: { range: palette() }, legend: null };
  // The entry that is pointed at, and those that clearly differ from it, stay; one that was not compared fades nothing.
  const alike = "chosen.position && chosen.ranked[0] && chosen.position[0] !== datum.position && indexof(datum.differs, chosen.position[0]) < 0";
  const opacity = { condition: [{ test: alike, value: 0.15 }, { test: "!datum.ranked", value: 0.45 }], value: 1 };
  return draw("forest", {
    data: { values: rows }, width: "container", height: 24 * rows.length,
    layer: [
      { ...ZERO, encoding: { x: { datum: 0 }, color: { value: "#8a929c" } } },
      { mark: { type: "rule", strokeWidth: 2 }, encoding: { y, opacity, x: { field: "low", type: "quantitative", title }, x2: { field: "high" } } },
      { params: [{ name: "chosen", select: { type: "point", fields: ["position", "ranked"], on: "pointerover", clear: "pointerout" } }],
        mark: { type: "point", size: 70, strokeWidth: 2 }, encoding: { y, opacity, x: { field: "mean", type: "quantitative", title }, tooltip: interval,
          fill: { condition: { test: "datum.clear", ...family }, value: isDark() ? "#14171c" : "#ffffff" } } },
    ],
    encoding: { color: { ...family, title: null } },
  });
}

function drawScaling(rows, gap, title) {
  const x = { field: "parameters", type: "quantitative", scale: { type: "log", nice: false, padding: 20 }, title: "parameters", axis: { format: "~s" } };
  return draw("scaling", {
    data: { values: rows }, width: "container", height: 280,
    layer: [
      { ...ZERO, encoding: { y: { datum: 0 }, color: { value: "#8a929c" } } },
      { mark: { type: "rule", strokeWidth: 2 }, encoding: { x, y: { field: "low", type: "quantitative", title }, y2: { field: "high" } } },
      { mark: { type: "point", filled: true, size: 70, opacity: 1 },
        encoding: { x, y: { field: "mean", type: "quantitative", title }, tooltip: [{ field: "model" }, { field: "parameters", format: "," }, { field: "mean", format: "+.3f", title: gap }] } },
    ],
    encoding: { color: { field: "family", type: "nominal", title: null, scale: { range: palette() }, legend: { orient: "bottom", columns: 3 } } },
  });
}

function drawSubmission(data) {
  const subsets = Object.keys(SUBSETS).filter((name) => data.curves.some((row) => row.subset === name));
  const strokeDash = { field: "subset", type: "nominal", title: null, sort: subsets,
    scale: { domain: subsets, range: subsets.map((name) => (name.includes("qa") ? [6, 3] : name === "unseen" ? [2, 3] : [1, 0])) } };
  const x = { field: "epoch", type: "quantitative", title: "epoch", axis: { tickMinStep: 1 } };
  const curves = data.curves.filter((row) => subsets.includes(row.subset));
  const stages = new Set(curves.map((row) => row.stage)).size;
  const width = Math.max(200, Math.min(420, (document.getElementById("learning").clientWidth - 160 - 40 * stages) / stages));
  const redraw = () => {
    const color = { field: "subset", type: "nominal", title: null, sort: subsets, legend: { symbolOpacity: 1, symbolType: "stroke" },
      scale: { domain: subsets, range: subsets.map((name) => palette()[SUBSETS[name]]) } };
    if (curves.length) {
      draw("learning", {
        data: { values: curves },
        facet: { column: { field: "stage", type: "nominal", title: null, sort: [...new Set(curves.map((row) => row.stage))] } }, resolve: { scale: { x: "independent" } },
        spec: { width, height: 260, layer: [
          { mark: { type: "area", opacity: 0.15 }, encoding: { x, color, y: { field: "low", type: "quantitative", title: data.curve_metric, scale: { domain: [0, 1], clamp: true } }, y2: { field: "high" } } },
          { mark: { type: "line" }, encoding: { x, color, strokeDash, y: { field: "mean", type: "quantitative" } } },
        ] },
      });
    } else {
      document.getElementById("learning").textContent = "This run recorded no learning curves.";
    }
    draw("per_seed", {
      data: { values: data.per_seed }, width: "container", height: 26 * new Set(data.per_seed.map((row) => row.gap)).size,
      layer: [
        { ...ZERO, encoding: { x: { datum: 0 } } },
        { mark: { type: "point", filled: true, size: 60, opacity: 0.7, color: palette()[0] }, encoding: {
          y: { field: "gap", type: "nominal", sort: null, title: null }, x: { field: "value", type: "quantitative", title: `difference in ${data.metric}` },
          tooltip: [{ field: "gap" }, { field: "seed" }, { field: "value", format: "+.3f" }] } },
      ],
    });
  };
  onTheme(redraw);
  redraw();
}

const themeListeners = [];
function onTheme(listener) { themeListeners.push(listener); }

(function () {
  const root = document.documentElement;
  // Storage may be denied, on a page that was opened as a file for one.
  const stored = (value) => { try { return value === undefined ? localStorage.getItem("theme") : localStorage.setItem("theme", value); } catch { return null; } };
  if (stored()) root.dataset.theme = stored();
  document.getElementById("theme").addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    stored(root.dataset.theme);
    themeListeners.forEach((listener) => listener());
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => themeListeners.forEach((listener) => listener()));
})();
