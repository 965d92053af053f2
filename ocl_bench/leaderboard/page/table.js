// The table: filtered, sorted, and kept in the address, so that a link leads to just this view.
"use strict";

(function () {
  const rows = JSON.parse(document.getElementById("rows").textContent).map((row, position) => ({ ...row, position }));
  const GAPS = ["meta_ocl_gap", "ocl_gap", "fresh_tag_gap", "internalisation"];
  const MOST = 4;  // entries side by side
  const first = firstBoard();
  const DEFAULTS = { q: "", task: first.task, division: first.division, family: "", engine: "", size: "", since: "", metric: document.getElementById("metric").value, gap: "meta_ocl_gap", sort: "meta_ocl_gap", dir: "desc", compare: "" };
  const SELECTS = ["task", "division", "family", "engine"];
  const byId = (id) => document.getElementById(id);
  const state = { ...DEFAULTS };

  // Rows of one task, version and division can be compared; which of these has most ranked entries is shown first.
  function board(row) { return `${row.task} · ${row.division}`; }
  function firstBoard() {
    const ranked = new Map(rows.map((row) => [board(row), 0]));
    rows.forEach((row) => ranked.set(board(row), ranked.get(board(row)) + (row.rank ? 1 : 0)));
    const most = Math.max(...ranked.values());
    return rows.find((row) => ranked.get(board(row)) === most) || { task: "", division: "" };
  }

  const columns = [
    { key: "rank", value: (row) => parseInt(row.rank, 10) || Infinity, text: (row) => row.rank, hint: (row) => row.unranked && `not ranked: ${row.unranked}` },
    { key: "model", value: (row) => row.model.toLowerCase(), text: (row) => row.model + row.mark },
    ...GAPS.map((gap) => ({ key: gap, gap, value: (row) => (cell(row, gap) ? cell(row, gap).mean : -Infinity), text: (row) => gapText(cell(row, gap)) })),
    { key: "division", value: (row) => row.division, text: (row) => row.division },
    { key: "level", value: (row) => ["re-run", "replayed", "checked", "revoked"].indexOf(row.level), text: (row) => (row.reason ? `revoked: ${row.reason}` : row.level), title: "how far it was verified" },
    { key: "family", value: (row) => row.family, text: (row) => row.family },
    { key: "parameters", value: (row) => row.parameters, text: (row) => row.parameters_text },
    { key: "detectable", value: (row) => least(row) ?? -Infinity, text: (row) => (least(row) == null ? "" : plain(least(row))), title: "the true meta_ocl_gap that its seeds would tell from 0 in 80 % of runs" },
    ...["form", "recall"].map((key) => ({ key, value: (row) => row[key], text: (row) => row[key], title: "of d1_cons / d2_cons" })),
    { key: "n", value: (row) => number(row), text: (row) => String(number(row)), title: "questions behind meta_ocl_gap" },
    { key: "seeds", value: (row) => row.seeds, text: (row) => String(row.seeds) },
    { key: "task", value: (row) => row.task, text: (row) => row.task },
    { key: "engine", value: (row) => row.engine, text: (row) => row.engine },
    { key: "date", value: (row) => row.date, text: (row) => row.date },
  ];

  const metricOf = (row) => (state.metric === "main" ? row.main_metric : state.metric);
  const cell = (row, gap) => (row.gaps[gap] || {})[metricOf(row)];
  const number = (row) => (cell(row, "meta_ocl_gap") || { n: 0 }).n;
  const least = (row) => (cell(row, "meta_ocl_gap") || {}).detectable;
  const plain = (value) => value.toFixed(3).replace(/^0\./, ".");
  const signed = (value) => ((value < 0 ? "−" : "+") + Math.abs(value).toFixed(3)).replace("0.", ".");
  const gapText = (one) => (one ? `${signed(one.mean)} [${signed(one.low)}, ${signed(one.high)}]` : "");

  // A size is a range of parameters, from the first number up to below the second.
  function fits(parameters) {
    const [least, below] = state.size.split("-").map(Number);
    return !state.size || (parameters >= least && parameters < below);
  }

  function shown() {
    const words = state.q.toLowerCase().split(/\s+/).filter(Boolean);
    const kept = rows.filter((row) =>
      SELECTS.every((name) => !state[name] || row[name] === state[name]) &&
      fits(row.parameters) && (!state.since || row.date >= state.since) &&
      words.every((word) => [row.model, row.family, row.engine, row.task, row.division].join(" ").toLowerCase().includes(word)));
    const column = columns.find((one) => one.key === state.sort) || columns.find((one) => one.key === DEFAULTS.sort);
    const sign = state.dir === "asc" ? 1 : -1;
    const boards = [...new Set(rows.map(board))];
    return kept.sort((a, b) => {
      const [x, y] = [column.value(a), column.value(b)];
      return boards.indexOf(board(a)) - boards.indexOf(board(b)) || sign * (x < y ? -1 : x > y ? 1 : 0);
    });
  }

  const chosen = () => state.compare.split(",").map((slug) => rows.find((row) => row.entry === slug)).filter(Boolean);

  function choice(row) {
    const own = chosen();
    const box = document.createElement("input");
    box.type = "checkbox";
    box.checked = own.includes(row);
    box.disabled = row.level === "revoked" || (own.length === MOST && !box.checked);
    box.title = box.disabled ? `at most ${MOST}, and none that was revoked` : "put it beside others";
    box.setAttribute("aria-label", `compare ${row.model}`);
    box.addEventListener("change", () => {
      const slugs = own.map((one) => one.entry).filter((slug) => slug !== row.entry);
      change({ compare: [...slugs, ...(box.checked ? [row.entry] : [])].join(",") });
      document.querySelector(`#board [data-entry="${row.entry}"] input`).focus();
    });
    return box;
  }

  function header() {
    const line = document.createElement("tr");
    for (const column of columns) {
      const head = document.createElement("th");
      const button = document.createElement("button");
      head.scope = "col";
      button.type = "button";
      button.textContent = column.key;
      if (column.title) button.title = column.title;
      if (column.key === state.sort) head.setAttribute("aria-sort", state.dir === "asc" ? "ascending" : "descending");
      button.addEventListener("click", () => {
        const down = column.gap || ["parameters", "detectable", "n", "seeds", "date"].includes(column.key);
        const first = down ? "desc" : "asc";
        const again = state.sort === column.key;
        change({ sort: column.key, dir: again ? (state.dir === "asc" ? "desc" : "asc") : first });
        document.querySelector(`#board th:nth-child(${columns.indexOf(column) + 1}) button`).focus();
      });
      head.append(button);
      line.append(head);
    }
    byId("board").tHead.replaceChildren(line);
  }

  function body(list) {
    byId("board").tBodies[0].replaceChildren(...list.map((row) => {
      const line = document.createElement("tr");
      line.dataset.entry = row.entry;
      if (row.level === "revoked") line.className = "revoked";
      for (const column of columns) {
        const data = document.createElement("td");
        data.className = column.key;
        if (column.key === "model") {
          const link = document.createElement("a");
          link.href = `${row.entry}.html`;
          link.textContent = row.model;
          data.append(link, row.mark);
        } else if (column.key === "rank") {
          data.append(choice(row), row.rank);
        } else if (column.gap && cell(row, column.gap)) {
          data.append(...withInterval(column.text(row)));
        } else {
          data.textContent = column.text(row);
        }
        if (column.hint && column.hint(row)) data.title = column.hint(row);
        line.append(data);
      }
      return line;
    }));
    byId("count").textContent = `${list.length} of ${rows.length} submissions`;
  }

  function withInterval(text) {
    const [mean, ...interval] = text.split(" ");
    const span = document.createElement("span");
    span.className = "ci";
    span.textContent = " " + interval.join(" ");
    return [mean, span];
  }

  // The chosen entries, and below them the difference of each pair.
  function comparison() {
    const own = chosen();
    const pairs = own.flatMap((a, place) => own.slice(place + 1).map((b) => [a, b]));
    const table = document.querySelector("#comparison table");
    const line = (name, cells) => {
      const made = document.createElement("tr");
      made.append(...[[name], ...cells].map((content) => {
        const data = document.createElement("td");
        data.append(...content);
        return data;
      }));
      return made;
    };
    const head = document.createElement("tr");
    head.append(...["", ...GAPS].map((text) => Object.assign(document.createElement("th"), { scope: "col", textContent: text })));
    table.tHead.replaceChildren(head);
    table.tBodies[0].replaceChildren(
      ...own.map((row) => line(named(row) + row.mark, GAPS.map((gap) => (cell(row, gap) ? withInterval(gapText(cell(row, gap))) : ["–"])))),
      ...pairs.map(([a, b]) => line(`${named(a)} − ${named(b)}`, GAPS.map((gap) => difference(a, b, gap)))),
    );
    if (pairs.length) table.tBodies[0].rows[own.length].className = "of-pairs";
    byId("comparison").hidden = own.length < 2;
  }

  function difference(a, b, gap) {
    const [one, other] = [cell(a, gap), cell(b, gap)];
    if (board(a) !== board(b)) return ["of different tasks, versions or divisions"];
    if (!one || !other || one.sd == null || other.sd == null) return ["–"];
    const found = welch(one, other);
    const clear = one.standing && [...one.standing.above, ...one.standing.below].includes(b.position);
    const chance = document.createElement("span");
    chance.textContent = `p ${found.p < 0.001 ? "< .001" : plain(found.p)}${clear ? " clear" : ""}`;
    return [...withInterval(gapText(found)), " ", chance];
  }

  function charts(list) {
    const several = new Set(list.map(board)).size > 1;
    const names = (positions) => positions.map((position) => rows[position].model).join(", ") || "none";
    const drawn = list.filter((row) => cell(row, state.gap) && row.level !== "revoked").map((row) => {
      const { standing, ...numbers } = cell(row, state.gap);
      const compared = standing
        ? { place: standing.place, clear: standing.clear, differs: [...standing.above, ...standing.below], above: names(standing.above), below: names(standing.below) }
        : { place: "not ranked", clear: false, differs: [], above: "not compared", below: "not compared" };
      return {
        ...numbers, ...compared, ranked: Boolean(standing), position: row.position, model: row.model, family: row.family, seeds: row.seeds, parameters: row.parameters,
        label: [standing && standing.place, named(row), ...(several ? [board(row)] : [])].filter(Boolean).join(" · "),
      };
    });
    // Of two entries that are called alike, each has a line of its own.
    drawn.forEach((one) => { if (drawn.some((other) => other !== one && other.label === one.label)) one.label += ` · ${rows[one.position].revision}`; });
    const title = `${state.gap} (${[...new Set(drawn.map(({ position }) => metricOf(rows[position])))].join(" or ")})`;
    if (!drawn.length) {
      for (const id of ["forest", "scaling"]) undrawn(id, "Nothing to draw.");
      return;
    }
    drawForest(drawn, state.gap, title);
    if (several) undrawn("scaling", "Choose one task and one division: gaps of others are not comparable.");
    else drawScaling(drawn, state.gap, title);
  }

  // Without the organisation, where that is everybody's.
  const organisations = new Set(rows.map((row) => row.model.split("/")[0]));
  const named = (row) => (organisations.size > 1 ? row.model : row.model.split("/").slice(1).join("/"));

  function render() {
    const list = shown();
    for (const [name, value] of Object.entries(state)) if (byId(name) && byId(name).value !== value) byId(name).value = value;
    header();
    body(list);
    byId("mixed").hidden = new Set(list.map(board)).size < 2;
    comparison();
    charts(list);
  }

  // A task that has no entry in the chosen division is shown in one that it has.
  function settle() {
    const own = rows.filter((row) => row.task === state.task);
    if (own.length && state.division && !own.some((row) => row.division === state.division)) state.division = own[0].division;
  }

  function change(update) {
    Object.assign(state, update);
    settle();
    const kept = Object.entries(state).filter(([name, value]) => value !== DEFAULTS[name]);
    history.replaceState(null, "", kept.length ? "#" + new URLSearchParams(kept) : location.pathname + location.search);
    render();
  }

  function fromAddress() {
    const given = new URLSearchParams(location.hash.slice(1));
    Object.assign(state, DEFAULTS);
    for (const name of Object.keys(DEFAULTS)) if (given.has(name)) state[name] = given.get(name);
    settle();
    render();
  }

  const tables = {
    csv: (heads, cells) => [heads, ...cells].map((line) => line.map((text) => (/[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text)).join(",")).join("\n") + "\n",
    markdown: (heads, cells) => [heads, heads.map(() => "---"), ...cells].map((line) => `| ${line.map((text) => text.replaceAll("|", "\\|")).join(" | ")} |`).join("\n") + "\n",
    latex: (heads, cells) => {
      const plain = (text) => text.replace(/[\\{}_&%$#^~]/g, (char) => ({ "\\": "\\textbackslash{}", "^": "\\textasciicircum{}", "~": "\\textasciitilde{}" }[char] || `\\${char}`)).replaceAll("−", "$-$").replaceAll("–", "--");
      const lines = [heads, ...cells].map((line) => line.map(plain).join(" & ") + " \\\\");
      return `\\begin{tabular}{${"l".repeat(heads.length)}}\n\\hline\n${lines[0]}\n\\hline\n${lines.slice(1).join("\n")}\n\\hline\n\\end{tabular}\n`;
    },
  };

  async function copy(kind) {
    const text = tables[kind](columns.map((one) => one.key), shown().map((row) => columns.map((one) => one.text(row))));
    try {
      await navigator.clipboard.writeText(text);
    } catch {  // without permission, or on a page opened as a file in some browsers
      const area = document.createElement("textarea");
      area.value = text;
      document.body.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
    }
    byId("copied").textContent = "Copied.";
    setTimeout(() => { byId("copied").textContent = ""; }, 2000);
  }

  for (const name of SELECTS) {
    const values = [...new Set(rows.map((row) => row[name]))].sort();
    byId(name).replaceChildren(new Option("all", ""), ...values.map((value) => new Option(value, value)));
  }
  for (const name of [...SELECTS, "size", "since", "metric", "gap"]) byId(name).addEventListener("change", (event) => change({ [name]: event.target.value }));
  byId("q").addEventListener("input", (event) => change({ q: event.target.value }));
  byId("filters").addEventListener("submit", (event) => event.preventDefault());
  byId("none").addEventListener("click", () => change({ compare: "" }));
  byId("fold").addEventListener("click", () => {
    const folded = byId("filters").classList.toggle("folded");
    byId("fold").setAttribute("aria-expanded", String(!folded));
    byId("fold").textContent = folded ? "More filters" : "Fewer filters";
  });
  document.querySelectorAll("[data-copy]").forEach((button) => button.addEventListener("click", () => copy(button.dataset.copy)));
  document.addEventListener("keydown", (event) => {
    if (event.key === "/" && !/INPUT|SELECT|TEXTAREA/.test(document.activeElement.tagName)) {
      event.preventDefault();
      byId("q").focus();
    } else if (event.key === "Escape" && document.activeElement === byId("q")) {
      change({ q: "" });
    }
  });
  addEventListener("hashchange", fromAddress);
  onTheme(render);
  fromAddress();
})();
