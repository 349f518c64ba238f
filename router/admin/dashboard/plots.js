// Four plots over the last hour, drawn as SVG: a line for each backend, a mark for each thing that explains a bend.

import { byId, clock, el, number, svg } from "./dom.js";
import { ask } from "./net.js";

const PLOTS = [
  { field: "tokens_per_s", title: "Tokens per second", unit: "tok/s", scale: 1, gap: 4 },
  { field: "ttft_s", title: "TTFT, median", unit: "ms", scale: 1000, gap: 12 },
  { field: "tpot_s", title: "TPOT, median", unit: "ms", scale: 1000, gap: 12 },
  { field: "score", title: "Quality: distance to the reference", unit: "nats", scale: 1, gap: 1e9, least: 0.01 },
];
const KEPT_S = 3600;
const PAD = { left: 46, right: 10, top: 16, bottom: 20 };

const data = new Map(); // backend: Map(start of step: {field: value})
let marks = [];
let step = 5;
let newest = 0;
let minutes = 15;
let names = [];
const hidden = new Set();
const COLOURS = 8;
let picked = false; // whether a person chose what is shown

/** The colour of a backend, the same everywhere on the page. */
export const colour = (name) => `var(--line-${Math.max(0, names.indexOf(name)) % COLOURS})`;

/** Make the empty plots. */
export function startPlots() {
  byId("plots").replaceChildren(...PLOTS.map((plot) => {
    plot.box = el("div", { class: "box" });
    plot.tip = el("div", { class: "tip", hidden: true });
    plot.box.addEventListener("pointermove", (event) => hover(plot, event));
    plot.box.addEventListener("pointerleave", () => { plot.tip.hidden = true; plot.cross?.setAttribute("visibility", "hidden"); });
    new ResizeObserver(() => draw(plot)).observe(plot.box);
    return el("figure", { class: "card plot" }, el("figcaption", {}, plot.title, el("span", { class: "muted" }, ` ${plot.unit}`)), plot.box, plot.tip);
  }));
  for (const button of byId("range").querySelectorAll("button")) {
    button.addEventListener("click", () => {
      minutes = Number(button.dataset.minutes);
      for (const one of byId("range").querySelectorAll("button")) one.setAttribute("aria-pressed", String(one === button));
      PLOTS.forEach(draw);
    });
  }
}

/** Fetch what is new; the newest two steps again, as they were still filling. */
export async function updatePlots(known) {
  const found = await ask(`/api/history?since=${Math.max(0, newest - 2 * step)}`);
  step = found.step_s;
  newest = found.first + (found.count - 1) * step;
  for (const [name, columns] of Object.entries(found.backends)) {
    const steps = data.get(name) ?? new Map();
    data.set(name, steps);
    for (let index = 0; index < found.count; index += 1) {
      const value = Object.fromEntries(PLOTS.map(({ field }) => [field, columns[field][index]]));
      if (Object.values(value).some((one) => one !== null)) steps.set(found.first + index * step, value);
    }
    for (const at of steps.keys()) if (at < newest - KEPT_S) steps.delete(at);
  }
  const seen = new Set(marks.map((mark) => `${mark.at}${mark.text}`));
  marks = [...marks, ...found.marks.filter((mark) => !seen.has(`${mark.at}${mark.text}`))].filter((mark) => mark.at > newest - KEPT_S);
  const now = [...new Set([...known, ...[...data].filter(([, steps]) => steps.size).map(([name]) => name)])];
  if (now.join("\n") !== names.join("\n")) {
    names = now;
    if (!picked) hideQuiet();
    legend();
  }
  PLOTS.forEach(draw);
  showMarks();
}

/** Forget everything: the router is another one now. */
export function forgetPlots() {
  data.clear();
  marks = [];
  newest = 0;
}

/** The tokens per second that all backends together gave in the last whole step. */
export function tokensNow() {
  const rates = names.map((name) => data.get(name)?.get(newest - step)?.tokens_per_s ?? null).filter((one) => one !== null);
  return rates.length ? rates.reduce((sum, one) => sum + one, 0) : null;
}

/** More lines than colours tell nothing: at first the busiest are shown. */
function hideQuiet() {
  hidden.clear();
  if (names.length <= COLOURS) return;
  const busy = (name) => [...(data.get(name)?.values() ?? [])].reduce((sum, one) => sum + (one.tokens_per_s ?? 0), 0);
  for (const name of [...names].sort((one, other) => busy(other) - busy(one)).slice(COLOURS)) hidden.add(name);
}

function legend() {
  const note = hidden.size && !picked ? [el("small", {}, `the ${COLOURS} busiest of ${names.length}; press a name to show or hide it`)] : [];
  byId("legend").replaceChildren(...note, ...names.map((name) => {
    const swatch = el("span", { class: "swatch" });
    swatch.style.background = colour(name);
    const button = el("button", { type: "button", "aria-pressed": String(!hidden.has(name)) }, swatch, name);
    button.addEventListener("click", () => {
      if (!hidden.delete(name)) hidden.add(name);
      button.setAttribute("aria-pressed", String(!hidden.has(name)));
      picked = true;
      byId("legend").querySelector("small")?.remove();
      PLOTS.forEach(draw);
    });
    return button;
  }));
}

const oldest = () => Math.min(...[...data.values()].flatMap((steps) => [...steps.keys()].slice(0, 1)), ...marks.map((mark) => mark.at)) - step;

function points(plot, name, from) {
  const found = [];
  for (const [at, value] of data.get(name) ?? []) {
    if (at >= from && value[plot.field] !== null) found.push([at, value[plot.field] * plot.scale]);
  }
  return found.sort((one, other) => one[0] - other[0]);
}

/** The largest of 1, 2 or 5 times a power of ten that cuts the axis into at most five. */
function tick(top) {
  const power = 10 ** Math.floor(Math.log10(top / 4));
  return [1, 2, 5, 10].map((one) => one * power).find((one) => top / one <= 5);
}

function draw(plot) {
  const width = plot.box.clientWidth;
  const height = plot.box.clientHeight;
  if (!width || !newest) return;
  const to = newest + step;
  const from = Math.max(to - minutes * 60, Math.min(oldest(), to - 120)); // a young router fills the width
  const lines = names.filter((name) => !hidden.has(name)).map((name) => [name, points(plot, name, from)]);
  const top = Math.max(plot.least ?? 1e-9, ...lines.flatMap(([, found]) => found.map(([, value]) => value))) * 1.08;
  const every = tick(top);
  const x = (at) => PAD.left + ((at - from) / (to - from)) * (width - PAD.left - PAD.right);
  const y = (value) => height - PAD.bottom - (value / top) * (height - PAD.top - PAD.bottom);
  const empty = lines.every(([, found]) => !found.length);
  const root = svg("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": spoken(plot, lines) });
  if (!empty) {
    for (let value = 0; value <= top; value += every) {
      root.append(svg("line", { class: "grid", x1: PAD.left, x2: width - PAD.right, y1: y(value), y2: y(value) }));
      root.append(svg("text", { class: "axis end", x: PAD.left - 6, y: y(value) + 4 }, short(value)));
    }
  }
  const between = [30, 60, 120, 300, 600, 900].find((one) => (to - from) / one <= width / 80) ?? 900;
  for (let at = Math.ceil(from / between) * between; at < to; at += between) {
    root.append(svg("text", { class: "axis middle", x: x(at), y: height - 5 }, between < 60 ? clock(at) : clock(at).slice(0, 5)));
  }
  for (const mark of marks.filter((one) => one.at >= from && one.kind !== "intent")) {
    root.append(svg("line", { class: mark.bad ? "mark bad" : "mark", x1: x(mark.at), x2: x(mark.at), y1: PAD.top - 4, y2: height - PAD.bottom }));
    root.append(svg("path", { class: mark.bad ? "flag bad" : "flag", d: `M${x(mark.at) - 4} ${PAD.top - 10}h8l-4 7z` }));
  }
  for (const [name, found] of lines) root.append(...line(plot, name, found, x, y));
  if (empty) root.append(svg("text", { class: "axis middle", x: width / 2, y: height / 2 }, "not measured yet"));
  plot.cross = svg("line", { class: "cross", y1: PAD.top, y2: height - PAD.bottom, visibility: "hidden" });
  root.append(plot.cross);
  plot.view = { from, to, width, lines };
  plot.box.replaceChildren(root);
}

function line(plot, name, found, x, y) {
  let path = "";
  let last = -Infinity;
  const alone = [];
  found.forEach(([at, value], index) => {
    const joined = at - last <= plot.gap * step;
    const follows = found[index + 1] && found[index + 1][0] - at <= plot.gap * step;
    path += `${joined ? "L" : "M"}${x(at).toFixed(1)} ${y(value).toFixed(1)}`;
    if (plot.field === "score" || (!joined && !follows)) alone.push(svg("circle", { cx: x(at), cy: y(value), r: 2.5 }));
    last = at;
  });
  const stroke = svg("path", { class: "series", d: path || "M0 0" });
  stroke.style.stroke = colour(name);
  for (const dot of alone) dot.style.fill = colour(name);
  return [stroke, ...alone];
}

const short = (value) => (value >= 1000 ? `${number(value / 1000)}k`.replace(".00", "").replace(".0k", "k") : String(Math.round(value * 1000) / 1000));

function spoken(plot, lines) {
  const said = lines.filter(([, found]) => found.length).map(([name, found]) => `${name} ${number(found.at(-1)[1])}`);
  return `${plot.title} in ${plot.unit}, last ${minutes} minutes. Newest: ${said.join(", ") || "nothing measured"}`;
}

function hover(plot, event) {
  if (!plot.view) return;
  const { from, to, width, lines } = plot.view;
  const px = event.clientX - plot.box.getBoundingClientRect().left;
  const at = from + ((px - PAD.left) / (width - PAD.left - PAD.right)) * (to - from);
  if (at < from || at > to) return;
  plot.cross.setAttribute("visibility", "visible");
  plot.cross.setAttribute("x1", px);
  plot.cross.setAttribute("x2", px);
  const near = (found) => found.reduce((best, one) => (best === null || Math.abs(one[0] - at) < Math.abs(best[0] - at) ? one : best), null);
  const reach = Math.max(2 * step, (to - from) / 40);
  const rows = lines.map(([name, found]) => [name, near(found)]).filter(([, one]) => one && Math.abs(one[0] - at) <= Math.max(reach, plot.field === "score" ? 90 : 0));
  const close = marks.filter((mark) => Math.abs(x(mark.at, plot.view) - px) < 7);
  plot.tip.replaceChildren(el("time", {}, clock(at)),
    ...rows.map(([name, [, value]]) => {
      const swatch = el("span", { class: "swatch" });
      swatch.style.background = colour(name);
      return el("p", {}, swatch, `${name} `, el("b", {}, `${number(value)} ${plot.unit}`));
    }),
    ...close.map((mark) => el("p", { class: mark.bad ? "wrong" : "" }, sentence(mark))));
  plot.tip.hidden = false;
  plot.tip.style.left = `${Math.min(px + 14, width - plot.tip.offsetWidth - 4)}px`;
}

const x = (at, { from, to, width }) => PAD.left + ((at - from) / (to - from)) * (width - PAD.left - PAD.right);
const sentence = (mark) => `${mark.backend ? `${mark.backend}: ` : ""}${mark.text}`;

function showMarks() {
  const newestFirst = marks.slice(-60).reverse();
  byId("marks").replaceChildren(...(newestFirst.length ? newestFirst.map((mark) => el("li", { class: mark.bad ? "bad" : "" },
    el("time", {}, clock(mark.at)), el("span", { class: "kind" }, mark.kind), el("span", {}, sentence(mark)))) : [el("li", { class: "muted" }, "Nothing in the last hour.")]));
}
