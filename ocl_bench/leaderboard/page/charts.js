// Charts of both kinds of page, by Vega-Lite, and the choice of light or dark.
"use strict";

const PAGE_WIDTH = 648;  // of a paper: 6.75 inches

function isDark() {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

// A chart's specification in the colours of a theme. Of the suite's figures they are in palette.js: PALETTE and SUBSETS.
function themed(spec, theme) {
  const [ink, line] = theme === "dark" ? ["#c9d0d9", "#343b45"] : ["#3b434e", "#dde1e6"];
  const axis = { labelColor: ink, titleColor: ink, gridColor: line, domainColor: line, tickColor: line, labelLimit: 260 };
  const config = {
    background: null, font: "system-ui, Liberation Sans, sans-serif", view: { stroke: null },
    axis, axisX: { labelOverlap: "greedy", labelSeparation: 6 }, legend: { labelColor: ink, titleColor: ink }, header: { labelColor: ink, titleColor: ink },
  };
  return { $schema: "https://vega.github.io/schema/vega-lite/v6.json", config, ...spec };
}

// Draw a chart, and offer it below as a picture of a paper's width and as numbers.
// make: (theme, width) → specification; a width of null is that of the place.
function draw(id, data, make) {
  const place = document.getElementById(id);
  offer(place, id, data, make);
  const theme = isDark() ? "dark" : "light";
  return vegaEmbed(place, themed(make(theme, null), theme), { actions: false, renderer: "svg" });
}

function offer(place, id, data, make) {
  let line = place.nextElementSibling;
  if (!line.classList.contains("take")) {
    line = Object.assign(document.createElement("p"), { className: "take" });
    place.after(line);
  }
  const button = (text, content) => {
    const made = Object.assign(document.createElement("button"), { type: "button", textContent: text.toUpperCase() });
    made.addEventListener("click", async () => save(`${id}.${text}`, await content()));
    return made;
  };
  const svg = () => new vega.View(vega.parse(vegaLite.compile(themed(make("light", PAGE_WIDTH), "light")).spec), { renderer: "none" }).toSVG();
  line.replaceChildren("Save as ", button("svg", svg), " ", button("csv", () => asCsv(data)));
}

// In a chart's place, why there is none.
function undrawn(id, why) {
  const place = document.getElementById(id);
  place.textContent = why;
  if (place.nextElementSibling.classList.contains("take")) place.nextElementSibling.remove();
}

function asCsv(rows) {
  const quoted = (value) => (/[",\n]/.test(String(value ?? "")) ? `"${String(value).replaceAll('"', '""')}"` : String(value ?? ""));
  const names = Object.keys(rows[0]);
  return [names, ...rows.map((row) => names.map((name) => row[name]))].map((line) => line.map(quoted).join(",")).join("\n") + "\n";
}

function save(name, text) {
  const link = Object.assign(document.createElement("a"), { download: name, href: URL.createObjectURL(new Blob([text])) });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href));
}

// As wide as its place, or so wide with all that is beside it.
function across(width) { return width === null ? { width: "container" } : { width, autosize: { type: "fit", contains: "padding" } }; }

const ZERO = { mark: { type: "rule", strokeDash: [3, 3], color: "#8a929c" }, encoding: {} };

// What of the rows is to be taken away.
function taken(rows) {
  return rows.map(({ model, family, parameters, seeds, n, mean, low, high, p, detectable, place }) => ({ model, family, parameters, seeds, n, mean, low, high, p, detectable, place }));
}

function drawForest(rows, gap, title) {
  const interval = [
    { field: "model", title: "model" }, { field: "mean", format: "+.3f", title: gap },
    { field: "low", format: "+.3f", title: "from" }, { field: "high", format: "+.3f", title: "to" },
    { field: "detectable", format: ".3f", title: "detectable" }, { field: "place", title: "place" },
    { field: "above", title: "clearly above" }, { field: "below", title: "clearly below" },
    { field: "seeds", title: "seeds" }, { field: "n", title: "questions" },
  ];
  const labelLimit = document.getElementById("forest").clientWidth < 480 ? 140 : 260;
  const y = { field: "label", type: "nominal", sort: rows.map((row) => row.label), title: null, axis: { labelLimit } };
  // The entry that is pointed at, and those that clearly differ from it, stay; one that was not compared fades nothing.
  const alike = "chosen.position && chosen.ranked[0] && chosen.position[0] !== datum.position && indexof(datum.differs, chosen.position[0]) < 0";
  const opacity = { condition: [{ test: alike, value: 0.15 }, { test: "!datum.ranked", value: 0.45 }], value: 1 };
  return draw("forest", taken(rows), (theme, width) => {
    const family = { field: "family", type: "nominal", scale: { range: PALETTE[theme] }, legend: null };
    return {
      data: { values: rows }, ...across(width), height: 24 * rows.length,
      layer: [
        { ...ZERO, encoding: { x: { datum: 0 }, color: { value: "#8a929c" } } },
        { mark: { type: "rule", strokeWidth: 2 }, encoding: { y, opacity, x: { field: "low", type: "quantitative", title }, x2: { field: "high" } } },
        { params: [{ name: "chosen", select: { type: "point", fields: ["position", "ranked"], on: "pointerover", clear: "pointerout" } }],
          mark: { type: "point", size: 70, strokeWidth: 2 }, encoding: { y, opacity, x: { field: "mean", type: "quantitative", title }, tooltip: interval,
            fill: { condition: { test: "datum.clear", ...family }, value: theme === "dark" ? "#14171c" : "#ffffff" } } },
      ],
      encoding: { color: { ...family, title: null } },
    };
  });
}

// Where a logarithmic axis is labelled: few enough numbers that none touches the next, 1, 2 and 5 of each power of ten at most.
function ticks(values) {
  const [low, high] = [Math.min(...values) / 1.3, Math.max(...values) * 1.3];
  const found = [[1], [1, 2, 5], [1, 2, 3, 4, 5, 6, 7, 8, 9]].map((digits) => {
    const all = [];
    for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power++) all.push(...digits.map((digit) => digit * 10 ** power));
    return all.filter((value) => value >= low && value <= high);
  });
  return found.find((all) => all.length > 2) || found[2];
}

function drawScaling(rows, gap, title) {
  const axis = { format: "~s", values: ticks(rows.map((row) => row.parameters)), labelOverlap: "greedy", labelSeparation: 8 };
  const x = { field: "parameters", type: "quantitative", scale: { type: "log", nice: false, padding: 20 }, title: "parameters", axis };
  return draw("scaling", taken(rows), (theme, width) => ({
    data: { values: rows }, ...across(width), height: 280,
    layer: [
      { ...ZERO, encoding: { y: { datum: 0 }, color: { value: "#8a929c" } } },
      { mark: { type: "rule", strokeWidth: 2 }, encoding: { x, y: { field: "low", type: "quantitative", title }, y2: { field: "high" } } },
      { mark: { type: "point", filled: true, size: 70, opacity: 1 },
        encoding: { x, y: { field: "mean", type: "quantitative", title }, tooltip: [{ field: "model" }, { field: "parameters", format: "," }, { field: "mean", format: "+.3f", title: gap }] } },
    ],
    encoding: { color: { field: "family", type: "nominal", title: null, scale: { range: PALETTE[theme] }, legend: { orient: "bottom", columns: 3 } } },
  }));
}

function drawSubmission(data) {
  const beside = (name) => name === "unseen" || name.endsWith("_swapped");
  const subsets = Object.keys(SUBSETS).filter((name) => data.curves.some((row) => row.subset === name));
  const strokeDash = { field: "subset", type: "nominal", title: null, sort: subsets,
    scale: { domain: subsets, range: subsets.map((name) => (name.includes("qa") ? [6, 3] : beside(name) ? [2, 3] : [1, 0])) } };
  const x = { field: "epoch", type: "quantitative", title: "epoch", axis: { tickMinStep: 1 } };
  const curves = data.curves.filter((row) => subsets.includes(row.subset));
  const stages = new Set(curves.map((row) => row.stage)).size;
  const each = (width) => Math.max(160, Math.min(420, (width - 160 - 40 * stages) / stages));
  const redraw = () => {
    if (curves.length) {
      draw("learning", curves, (theme, width) => {
        const color = { field: "subset", type: "nominal", title: null, sort: subsets, legend: { symbolOpacity: 1, symbolType: "stroke" },
          scale: { domain: subsets, range: subsets.map((name) => SUBSETS[name][theme]) } };
        return {
          data: { values: curves },
          facet: { column: { field: "stage", type: "nominal", title: null, sort: [...new Set(curves.map((row) => row.stage))] } }, resolve: { scale: { x: "independent" } },
          spec: { width: each(width ?? document.getElementById("learning").clientWidth), height: width === null ? 260 : 180, layer: [
            { transform: [{ filter: "!test(/_swapped$/, datum.subset)" }], mark: { type: "area", opacity: 0.15 }, encoding: { x, color, y: { field: "low", type: "quantitative", title: data.curve_metric, scale: { domain: [0, 1], clamp: true } }, y2: { field: "high" } } },
            { mark: { type: "line" }, encoding: { x, color, strokeDash, y: { field: "mean", type: "quantitative" } } },
          ] },
        };
      });
    } else {
      undrawn("learning", "This run recorded no learning curves.");
    }
    draw("per_seed", data.per_seed, (theme, width) => ({
      data: { values: data.per_seed }, ...across(width), height: 26 * new Set(data.per_seed.map((row) => row.gap)).size,
      layer: [
        { ...ZERO, encoding: { x: { datum: 0 } } },
        { mark: { type: "point", filled: true, size: 60, opacity: 0.7, color: PALETTE[theme][0] }, encoding: {
          y: { field: "gap", type: "nominal", sort: null, title: null }, x: { field: "value", type: "quantitative", title: `difference in ${data.metric}` },
          tooltip: [{ field: "gap" }, { field: "seed" }, { field: "value", format: "+.3f" }] } },
      ],
    }));
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
