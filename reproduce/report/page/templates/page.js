"use strict";
// The page works without this script, which adds sorting, filters, dialogs and the theme.
// Text from trials becomes text nodes and attributes, never markup.

const CHUNK = 100; // rows added when the reader scrolls to the end of the trials table
const LONG = 240; // values with more characters are collapsed

function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}

function svg(tag, attributes, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

const compareText = (a, b) => a.localeCompare(b, "en", {numeric: true});

/* Theme: the system's unless the reader selects one. */

function setUpTheme() {
  const button = document.getElementById("theme");
  const system = matchMedia("(prefers-color-scheme: dark)");
  const root = document.documentElement;
  const remembered = (() => { try { return localStorage.getItem("theme"); } catch { return null; } })();
  if (remembered === "dark" || remembered === "light") root.dataset.theme = remembered;
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);
  const show = () => button.setAttribute("aria-pressed", isDark());
  button.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    try { localStorage.setItem("theme", root.dataset.theme); } catch { /* storage is not available */ }
    show();
  });
  system.addEventListener("change", show);
  button.hidden = false;
  show();
}

/* Tables: a click on a header sorts `rows` in place and calls `redraw`. */

function makeSortable(table, rows, redraw) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, i) => {
    const key = row => row.cells[i].dataset.sort ?? row.cells[i].textContent.trim();
    const sort = () => {
      const up = head.getAttribute("aria-sort") !== "ascending";
      heads.forEach(other => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const keyed = rows.map(row => [key(row), row]);
      keyed.sort(([x], [y]) => {
        if (x === "" || y === "") return (x === "") - (y === "");
        const order = isNaN(x) || isNaN(y) ? compareText(x, y) : x - y;
        return up ? order : -order;
      });
      rows.splice(0, rows.length, ...keyed.map(([, row]) => row));
      redraw();
    };
    const button = el("button", {type: "button", onclick: sort}, ...head.childNodes);
    head.append(button);
  });
}

/* Folded cards: one button opens all; printing shows them open. */

function setUpFolds() {
  const folds = [...document.querySelectorAll(".verdicts details")];
  if (!folds.length) return;
  const isOpen = () => folds.every(fold => fold.open);
  const button = el("button", {type: "button", id: "unfold"});
  const label = () => { button.textContent = isOpen() ? "Fold all" : "Unfold all"; };
  button.addEventListener("click", () => {
    const open = !isOpen();
    for (const fold of folds) fold.open = open;
  });
  for (const fold of folds) fold.addEventListener("toggle", label);
  label();
  document.querySelector(".verdicts").before(button);
  let closed = [];
  addEventListener("beforeprint", () => {
    closed = folds.filter(fold => !fold.open);
    for (const fold of closed) fold.open = true;
  });
  addEventListener("afterprint", () => { for (const fold of closed) fold.open = false; });
}

/* Boxes that scroll sideways: marked at each edge beyond which they continue. */

function setUpEdges() {
  const mark = box => {
    const right = box.scrollWidth - box.clientWidth - box.scrollLeft;
    box.classList.toggle("more-left", box.scrollLeft > 2);
    box.classList.toggle("more-right", right > 2);
  };
  const sizes = new ResizeObserver(entries => { for (const {target} of entries) mark(target.closest(".sheet, .scroll") ?? target); });
  for (const box of document.querySelectorAll(".sheet, .scroll")) {
    box.addEventListener("scroll", () => mark(box), {passive: true});
    sizes.observe(box);
    if (box.firstElementChild) sizes.observe(box.firstElementChild);
  }
}

/* Filters: the script fills the selects with the values that occur. */

function fillSelect(select, values) {
  for (const value of [...new Set(values)].sort(compareText)) select.append(el("option", {value}, value));
  select.closest("label").hidden = select.options.length < 3;
}

function setUpFigures(dialog) {
  const figures = [...document.querySelectorAll(".figure")];
  for (const figure of figures) {
    const sheet = figure.querySelector(".sheet");
    const title = figure.querySelector("h3").textContent;
    const open = opener => enlarge(dialog, title, sheet, opener);
    const button = el("button", {type: "button", class: "enlarge", "aria-label": `Enlarge ${title}`}, "Enlarge");
    button.addEventListener("click", () => open(button));
    figure.querySelector("h3").after(button);
    sheet.addEventListener("click", () => open(sheet));
    sheet.addEventListener("keydown", event => {
      if (event.key === "Enter") { event.preventDefault(); open(sheet); }
    });
  }
  const form = document.getElementById("figure-filters");
  if (!form) return;
  const drawings = figures.map(figure => readPanels(figure.querySelector(".sheet svg")));
  const names = ["model", "task"];
  const subjects = name => drawings.flatMap(({panels}) => panels.map(panel => panel[name])).filter(Boolean);
  for (const name of names) fillSelect(form.elements[name], subjects(name));
  const isShown = panel => names.every(name => ["", panel[name]].includes(form.elements[name].value) || !panel[name]);
  const apply = () => {
    figures.forEach((figure, i) => {
      const shown = drawings[i].panels.filter(isShown);
      figure.hidden = drawings[i].panels.length > 0 && !shown.length;
      if (shown.length) arrange(drawings[i], shown);
    });
    const shown = figures.filter(figure => !figure.hidden).length;
    form.querySelector("output").textContent = `${shown} of ${figures.length} figures`;
  };
  form.addEventListener("change", apply);
  form.addEventListener("reset", () => setTimeout(apply));
  form.addEventListener("submit", event => event.preventDefault());
  form.hidden = names.every(name => form.elements[name].closest("label").hidden);
  apply();
}

/* A figure's panels, identified by ids in its SVG; a panel's position is that of its background. */

function readPanels(drawing) {
  const panels = new Map();
  for (const node of drawing.querySelectorAll("g[id*='-panel:']")) {
    const [, place, , model, task] = node.id.split(":");
    const corners = node.querySelector("path").getAttribute("d").match(/-?[\d.]+/g).map(Math.round);
    const [xs, ys] = [0, 1].map(side => corners.filter((_, i) => i % 2 === side));
    const panel = panels.get(place) ?? {
      model: decodeURIComponent(model), task: decodeURIComponent(task), nodes: [], x: Infinity, y: Infinity, bottom: 0,
    };
    panel.nodes.push(node);
    panel.x = Math.min(panel.x, ...xs);
    panel.y = Math.min(panel.y, ...ys);
    panel.bottom = Math.max(panel.bottom, ...ys);
    panels.set(place, panel);
  }
  const box = drawing.viewBox.baseVal;
  return {panels: [...panels.values()], drawing, size: [box.width, box.height], foot: drawing.querySelector("g[id$='-legend']")};
}

// The shown panels move up into the positions of the hidden ones, and the drawing gets shorter.
function arrange({panels, drawing, size: [width, height], foot}, shown) {
  const unique = values => [...new Set(values)].sort((a, b) => a - b);
  const [lefts, tops] = [unique(panels.map(panel => panel.x)), unique(panels.map(panel => panel.y))];
  const bottoms = tops.map(top => Math.max(...panels.filter(panel => panel.y === top).map(panel => panel.bottom)));
  const gap = tops.length > 1 ? tops[1] - bottoms[0] : 0;
  const move = (node, x, y) => node.setAttribute("transform", `translate(${x} ${y})`);
  let top = tops[0], end = top;
  const all = shown.length === panels.length;
  for (const panel of panels) for (const node of panel.nodes) node.style.display = shown.includes(panel) ? "" : "none";
  shown.forEach((panel, i) => {
    const column = i % lefts.length;
    if (i && !column) top = end + gap;
    for (const node of panel.nodes) all ? move(node, 0, 0) : move(node, lefts[column] - panel.x, top - panel.y);
    end = Math.max(column ? end : 0, top + panel.bottom - panel.y);
  });
  const less = all ? 0 : Math.max(...bottoms) - end;
  if (foot) move(foot, 0, -less);
  // The width is what the panels, the title and the legend need.
  const right = node => node.getBBox().x + node.getBBox().width + (node.transform.baseVal[0]?.matrix.e ?? 0);
  const parts = [...drawing.querySelector("g").children].slice(1).filter(node => node.style.display !== "none");
  const wide = all ? width : Math.min(width, Math.max(...parts.map(right)) + 8);
  drawing.setAttribute("viewBox", `0 0 ${wide} ${height - less}`);
  drawing.style.setProperty("--width", `${wide}pt`);
}

/* One dialog for figures and trials; closing it returns the focus to its opener. */

function makeDialog() {
  const title = el("h2", {id: "dialog-title"});
  const tools = el("div", {class: "tools"});
  const close = el("button", {type: "button", class: "close", onclick: () => node.close()}, "Close");
  const body = el("div", {class: "dialog-body", tabindex: "0", role: "region", "aria-labelledby": "dialog-title"});
  const node = el("dialog", {"aria-labelledby": "dialog-title"}, el("div", {class: "dialog-head"}, title, tools, close), body);
  let opener = null, after = null;
  node.addEventListener("click", event => { if (event.target === node) node.close(); });
  node.addEventListener("close", () => {
    after?.();
    body.replaceChildren();
    tools.replaceChildren();
    opener?.focus();
  });
  document.body.append(node);
  return {
    node, tools,
    fill(text, ...parts) { title.textContent = text; body.replaceChildren(...parts); body.scrollTop = 0; },
    open(kind, from, closed) {
      [opener, after, node.className] = [from, closed, kind];
      node.showModal();
      close.focus();
    },
  };
}

function enlarge(dialog, title, sheet, opener) {
  const drawing = sheet.querySelector("svg");
  sheet.style.minHeight = `${sheet.offsetHeight}px`;
  dialog.fill(title, el("div", {class: "sheet large"}, drawing));
  dialog.open("wide", opener, () => { sheet.append(drawing); sheet.style.minHeight = ""; });
}

/* All trials: search, filters, rows added on scrolling, one trial in a dialog. */

function setUpTrials(dialog) {
  const table = document.querySelector("table[data-trials]");
  if (!table) return;
  const form = document.getElementById("trial-filters");
  const claim = document.getElementById("claim");
  const scroll = table.closest(".scroll");
  const heads = [...table.tHead.rows[0].cells].map(cell => cell.textContent);
  const rows = [...table.tBodies[0].rows];
  const texts = new Map(rows.map(row => [row, [...row.cells].map(cell => cell.textContent)]));
  const haystacks = new Map(rows.map(row => [row, texts.get(row).join("\n").toLowerCase()]));
  const places = Object.fromEntries(["model", "task", "strategy", "status"].map(name => [name, heads.indexOf(name)]));
  let strategies = null, matching = rows, drawn = 0;

  const kind = name => name.replace(/\d+(\.\d+)?$/, "");
  const matches = row => {
    const text = texts.get(row), strategy = text[places.strategy];
    const words = form.elements.search.value.toLowerCase().split(/\s+/).filter(Boolean);
    return words.every(word => haystacks.get(row).includes(word))
      && Object.entries(places).every(([name, i]) => [text[i], ""].includes(form.elements[name].value))
      && (!strategies?.length || strategies.includes(strategy) || strategies.includes(kind(strategy)));
  };
  const drawMore = () => {
    table.tBodies[0].append(...matching.slice(drawn, drawn + CHUNK));
    drawn = Math.min(matching.length, drawn + CHUNK);
  };
  const redraw = () => {
    matching = rows.filter(matches);
    drawn = 0;
    table.tBodies[0].replaceChildren();
    drawMore();
    scroll.scrollTop = 0;
    table.setAttribute("aria-rowcount", matching.length + 1);
    claim.hidden = !strategies;
    const count = n => n.toLocaleString("en");
    form.querySelector("output").textContent = `${count(matching.length)} of ${count(rows.length)} trials`;
  };
  const showClaim = link => {
    form.reset();
    strategies = link ? JSON.parse(link.dataset.strategies) : null;
    claim.querySelector("span").textContent = link ? `Trials of claim ${link.dataset.claim}: ${strategies.join(", ") || "all strategies"}` : "";
  };

  for (const [name, i] of Object.entries(places)) fillSelect(form.elements[name], rows.map(row => texts.get(row)[i]));
  form.addEventListener("input", redraw);
  form.addEventListener("submit", event => event.preventDefault());
  form.addEventListener("reset", () => { strategies = null; setTimeout(redraw); });
  claim.querySelector("button").addEventListener("click", () => {
    showClaim(null);
    redraw();
    form.elements.search.focus();
  });
  for (const link of document.querySelectorAll("a[data-strategies]")) {
    link.addEventListener("click", () => { showClaim(link); redraw(); });
  }
  scroll.addEventListener("scroll", () => {
    const left = scroll.scrollHeight - scroll.scrollTop - scroll.clientHeight;
    if (left < 600 && drawn < matching.length) drawMore();
  });
  makeSortable(table, rows, redraw);
  openTrials(dialog, table, rows, () => matching, row => heads.map((head, i) => [head, texts.get(row)[i]]));
  form.hidden = false;
  redraw();
}

function openTrials(dialog, table, rows, list, summary) {
  const embedded = document.getElementById("trial-records");
  if (!embedded) return;
  let records = null;
  const find = id => (records ??= readRecords(embedded.textContent))(id);
  const idOf = row => row.cells[row.cells.length - 1].textContent;
  const fill = row => {
    const cells = summary(row);
    const record = find(idOf(row));
    const name = cells.slice(0, 4).map(([, text]) => text).join(" · ");
    dialog.fill(name, ...(record ? trialParts(cells, record) : ["This page does not contain the details of this trial."]));
  };
  const open = (row, opener) => {
    let current = row;
    const step = by => () => {
      const trials = list();
      current = trials[(trials.indexOf(current) + by + trials.length) % trials.length];
      fill(current);
    };
    dialog.tools.replaceChildren(
      el("button", {type: "button", onclick: step(-1), "aria-label": "Previous trial"}, "←"),
      el("button", {type: "button", onclick: step(1), "aria-label": "Next trial"}, "→"),
    );
    fill(row);
    dialog.open("trial", opener);
  };
  for (const row of rows) {
    const cell = row.cells[row.cells.length - 1];
    cell.replaceChildren(el("button", {type: "button", class: "open-trial", "aria-haspopup": "dialog"}, ...cell.childNodes));
  }
  table.tBodies[0].addEventListener("click", event => {
    const row = event.target.closest("tr");
    if (row && !String(getSelection())) open(row, row.querySelector("button"));
  });
  table.classList.add("opens");
}

/* The embedded records: a function from a run id to a Map of column name -> {group, value}. */

function readRecords(text) {
  const {count, columns} = JSON.parse(text);
  const cell = ({cells, codes}, i) => cells[codes ? codes[i] : 0];
  const ids = columns.find(column => column.name === "run_id");
  const places = new Map(Array.from({length: count}, (_, i) => [cell(ids, i), i]));
  return id => places.has(id)
    ? new Map(columns.map(column => [column.name, {group: column.group, value: cell(column, places.get(id))}]))
    : null;
}

const isMissing = value => value !== null && typeof value === "object" && !Array.isArray(value);

function shownValue(name, value) {
  if (isMissing(value)) return [el("span", {class: "why"}, `no value: ${value.why}`)];
  if (typeof value === "boolean") return [value ? "yes" : "no"];
  if (Array.isArray(value)) return [value.length ? value.map(item => item ?? "no number").join(", ") : "none (an empty list)"];
  if (typeof value === "number") {
    if (!Number.isInteger(value) || name === "seed") return [String(value)];
    const grouped = value.toLocaleString("en");
    return [name.endsWith("_bytes") && value >= 1024 ? `${grouped} (${inUnits(value)})` : grouped];
  }
  if (String(value).length <= LONG) return [String(value)];
  return [el("details", {}, el("summary", {}, `${value.length.toLocaleString("en")} characters`), el("code", {}, value))];
}

function inUnits(bytes) {
  const power = Math.min(3, Math.floor(Math.log2(bytes) / 10));
  return `${(bytes / 1024 ** power).toFixed(2)} ${["B", "KiB", "MiB", "GiB"][power]}`;
}

function trialParts(summary, record) {
  const get = name => record.get(name)?.value;
  const pairs = entries => el("dl", {}, ...entries.flatMap(([name, parts]) => [el("dt", {}, name), el("dd", {}, ...parts)]));
  const groups = new Map();
  for (const [name, {group, value}] of record) {
    if (group) groups.set(group, [...(groups.get(group) ?? []), [name, shownValue(name, value)]]);
  }
  const parts = [el("dl", {class: "summary"}, ...summary.slice(4).map(([name, text]) => el("div", {}, el("dt", {}, name), el("dd", {}, text))))];
  if (get("status") !== "ok" && !isMissing(get("error_message"))) {
    parts.push(el("p", {class: "note"}, `${isMissing(get("error_type")) ? "" : `${get("error_type")}: `}${get("error_message")}`));
  }
  parts.push(el("div", {class: "drawings"},
    el("section", {}, el("h3", {}, "Training loss"), ...lossParts(get)),
    el("section", {}, el("h3", {}, "Layers"), ...layerParts(get))));
  parts.push(el("h3", {}, "Complete row"), el("p", {class: "soft"}, "Values as in the Parquet file: seconds, bytes, fractions of 1; layers are counted from 0."));
  parts.push(el("div", {class: "facts"}, ...[...groups].map(([group, entries]) => el("section", {}, el("h4", {}, group), pairs(entries)))));
  return parts;
}

function layerParts(get) {
  const [total, frozen] = [get("n_layers"), get("frozen_layers")];
  for (const value of [total, frozen]) if (value === undefined || isMissing(value)) return shownValue("", value ?? {why: "not recorded"});
  const boxes = Array.from({length: total}, (_, i) => el("li", frozen.includes(i) ? {class: "frozen"} : {}, String(i + 1)));
  const label = `${frozen.length} of ${total} layers frozen, counted from 1 at the input`;
  boxes.forEach((box, i) => box.append(el("span", {class: "unseen"}, frozen.includes(i) ? " frozen" : " trained")));
  return [el("ol", {class: "layers", "aria-label": label}, ...boxes), el("p", {class: "soft"}, `${label}. Filled: frozen.`)];
}

function lossParts(get) {
  const [steps, loss, width] = [get("loss_step"), get("loss"), get("loss_width")];
  if (loss === undefined) return [el("p", {class: "soft"}, "This page was made without the training steps.")];
  if (isMissing(loss)) return [el("p", {class: "soft"}, shownValue("", loss)[0])];
  const known = loss.filter(value => value !== null);
  if (!known.length) return [el("p", {class: "soft"}, "No training step has a finite loss.")];
  const [w, h, left, right, top, bottom] = [440, 180, 46, 14, 12, 24];
  const [low, high] = [Math.min(...known), Math.max(...known)];
  const [first, last] = [1, steps[steps.length - 1]];
  const x = step => left + (w - left - right) * (last > first ? (step - first) / (last - first) : 0.5);
  const y = value => top + (h - top - bottom) * (high > low ? (high - value) / (high - low) : 0.5);
  const short = value => String(Number(value.toPrecision(3)));
  const drawing = svg("svg", {viewBox: `0 0 ${w} ${h}`, class: "loss", role: "img",
    "aria-label": `Training loss from ${short(known[0])} to ${short(known[known.length - 1])} over ${last} steps`});
  for (const value of high > low ? [low, (low + high) / 2, high] : [low]) {
    drawing.append(svg("line", {class: "grid", x1: left, x2: w - right, y1: y(value), y2: y(value)}),
      svg("text", {x: left - 6, y: y(value) + 4, "text-anchor": "end"}, short(value)));
  }
  for (const [step, anchor] of last > first ? [[first, "start"], [last, "end"]] : [[first, "middle"]]) {
    drawing.append(svg("text", {x: x(step), y: h - 6, "text-anchor": anchor}, `step ${step}`));
  }
  const change = get("switch_step");
  if (typeof change === "number" && change >= first && change <= last) {
    drawing.append(svg("line", {class: "switch", x1: x(change), x2: x(change), y1: top, y2: h - bottom}),
      svg("text", {x: x(change) + 4, y: top + 14}, "switch"));
  }
  let path = "", pen = "M";
  loss.forEach((value, i) => {
    if (value === null) { pen = "M"; return; }
    path += `${pen}${x(steps[i]).toFixed(1)} ${y(value).toFixed(1)}`;
    pen = "L";
    const before = loss[i - 1] ?? null, after = loss[i + 1] ?? null;
    if (before === null && after === null) drawing.append(svg("circle", {cx: x(steps[i]), cy: y(value), r: 2.5}));
  });
  drawing.append(svg("path", {class: "curve", d: path}));
  const gaps = loss.length - known.length;
  const note = (width > 1 ? `Each point is the mean of the ${width} steps up to it.` : "One point for each step.")
    + (gaps ? ` ${gaps} of ${loss.length} points have a loss that is not finite.` : "");
  return [drawing, el("p", {class: "soft"}, note)];
}

const dialog = makeDialog();
setUpTheme();
setUpFolds();
for (const table of document.querySelectorAll("table[data-sortable]:not([data-trials])")) {
  const rows = [...table.tBodies[0].rows];
  makeSortable(table, rows, () => table.tBodies[0].append(...rows));
}
setUpFigures(dialog);
setUpTrials(dialog);
setUpEdges();
