// The fleet: one row for each model of each backend, updated cell by cell, with everything else behind the name.

import { byId, duration, el, fill, number } from "./dom.js";
import { order } from "./dialog.js";

const GRADES = { good: "good", plausible: "good", suspect: "warn", flagged: "bad", unknown: "none" };
const HEALTHS = { healthy: "good", suspect: "warn", probation: "warn", starting: "busy", ejected: "bad", off: "none" };
const SHOWN = 4; // lines of what wants attention
const rows = new Map(); // by backend and model
const opened = new Set();

/** Show a status document. */
export function showFleet(status) {
  const body = byId("fleet").tBodies[0];
  const wanted = [];
  for (const backend of status.backends) {
    const models = backend.models.length ? backend.models : [null];
    models.forEach((model, index) => wanted.push(...rowsOf(backend, model, index === 0)));
  }
  for (const [key, row] of rows) {
    if (!wanted.includes(row)) {
      row.remove();
      rows.delete(key);
    }
  }
  wanted.forEach((row, index) => {
    if (body.rows[index] !== row) body.insertBefore(row, body.rows[index] ?? null);
  });
  byId("fleet-empty").hidden = wanted.length > 0;
  byId("fleet-empty").textContent = "The fleet has no backend yet. Add one to the fleet file and press Reload…, or start the router with --backend URL.";
}

function rowsOf(backend, model, first) {
  const row = kept(`${backend.name}\n${model?.model ?? ""}`, () => {
    const labels = ["", "Health", "Kernel", "Model", "Decode", "Prefill", "In flight", "Waiting", "KV cache", ""];
    return el("tr", { class: "backend" }, labels.map((label, index) => el(index ? "td" : "th", {
      "data-label": label, class: index >= 4 && index <= 7 ? "number" : null, scope: index ? null : "row",
    })));
  });
  row.classList.toggle("more", !first);
  row.classList.toggle("absent", backend.health === "off");
  const cells = row.cells;
  if (first) {
    fill(cells[0], [backend.name, place(backend), opened.has(backend.name)], () => nameCell(backend));
    fill(cells[1], health(backend), healthCell);
    fill(cells[2], kernel(backend), kernelCell);
    fill(cells[7], [number(backend.waiting)], ([text]) => text);
    fill(cells[8], [backend.kv_usage === null ? null : Math.round(backend.kv_usage * 100)], kvCell);
    fill(cells[9], [backend.name, backend.intent, flagged(backend), backend.models.length > 0], ordersCell);
  }
  fill(cells[3], [model?.model, model?.grade, model?.score, model?.grade_reason, model?.flagged_by], modelCell);
  fill(cells[4], estimate(model, "decode_rate"), speedCell);
  fill(cells[5], estimate(model, "prefill_rate"), speedCell);
  fill(cells[6], [model?.in_flight ?? backend.in_flight], ([count]) => el("span", { class: count ? "busy" : "muted" }, String(count)));
  if (!first || !opened.has(backend.name)) return [row];
  const more = kept(`${backend.name}\ndetails`, () => el("tr", { class: "details" }, el("td", { colspan: 10 })));
  fill(more.cells[0], backend.models.concat(backend.gpus, backend.health, backend.health_reason, backend.intent_reason, backend.build), () => details(backend));
  return [row, more];
}

function kept(key, make) {
  if (!rows.has(key)) rows.set(key, make());
  return rows.get(key);
}

const place = (backend) => `${backend.hosts.join(" + ")} · ${backend.address}`;
const flagged = (backend) => backend.models.some((model) => model.grade === "flagged");

function nameCell(backend) {
  const open = opened.has(backend.name);
  const toggle = () => {
    if (!opened.delete(backend.name)) opened.add(backend.name);
    document.dispatchEvent(new Event("redraw"));
  };
  return [
    el("button", { class: "name", type: "button", "aria-expanded": String(open), onclick: toggle }, backend.name),
    el("small", {}, place(backend)),
  ];
}

function health(backend) {
  const loading = backend.loading_for_s;
  const eta = backend.loading_eta_s;
  return {
    health: backend.health,
    intent: backend.intent,
    reason: backend.intent === "active" ? backend.health_reason : backend.intent_reason || backend.health_reason,
    since: duration(backend.health_for_s),
    loading: loading === null ? null : Math.floor(loading / 6) / 10,
    eta: eta === null ? null : Math.round(eta / 6) / 10,
  };
}

function healthCell({ health, intent, reason, since, loading, eta }) {
  const pills = [pill(health, HEALTHS[health] ?? "none", reason)];
  if (intent !== "active") pills.push(pill(intent, "said", reason));
  if (loading === null) return [el("span", { class: "pills" }, pills), el("small", { title: reason }, health === "healthy" && intent === "active" ? `for ${since}` : reason)];
  const text = eta ? `loading, ${loading} of about ${eta} min` : `loading for ${loading} min`;
  const bar = eta ? el("progress", { value: Math.min(loading, eta), max: eta, "aria-label": text }) : null;
  return [el("span", { class: "pills" }, pills), bar, el("small", {}, text)];
}

export const pill = (text, kind, title) => el("span", { class: `pill ${kind}`, title: title || null }, text);

function kernel(backend) {
  return {
    declared: backend.declared_kernel, observed: backend.observed_kernel, matches: backend.kernel_matches,
    detail: backend.kernel_detail, version: backend.version, build: backend.build,
  };
}

function kernelCell({ declared, observed, matches, detail, version, build }) {
  const parts = declared && declared !== observed
    ? [el("span", { class: "declared" }, declared), " → ", el("strong", {}, observed === "unknown" ? "not seen" : observed.toUpperCase())]
    : [el("span", {}, observed === "unknown" ? "not seen" : observed), matches ? el("span", { class: "good", title: "runs as declared" }, " ✓") : null];
  const built = [version ? `vLLM ${version}` : null, build ? `build ${build.slice(0, 8)}` : null].filter(Boolean).join(" · ");
  const kind = matches === false ? "kernel wrong" : observed === "unknown" ? "kernel muted" : "kernel";
  return [el("span", { class: kind, title: detail }, parts.filter(Boolean)), el("small", {}, built)];
}

function modelCell([model, grade, score, reason, by]) {
  if (!model) return el("span", { class: "muted" }, "–");
  const note = grade === "unknown" ? null : score === null ? reason : `${reason} (score ${number(score)})`;
  return [
    el("span", { class: "model" }, model, " ", pill(grade === "unknown" ? "not checked" : grade, GRADES[grade] ?? "none", reason)),
    note ? el("small", { title: note }, by ? `by ${by}: ${note}` : note) : null,
  ];
}

function estimate(model, name) {
  const found = model?.speed[name];
  return found ? [number(found.value), number(found.spread), found.samples >= 1, found.source] : [null];
}

function speedCell([value, spread, learned, source]) {
  if (value === null) return el("span", { class: "muted" }, "–");
  if (!learned) return [el("span", { class: "muted", title: `not learned: ${source}` }, `(${value})`), el("small", {}, source)];
  return [el("span", {}, value), el("small", {}, `± ${spread} tok/s`)];
}

function kvCell([percent]) {
  if (percent === null) return el("span", { class: "muted" }, "–");
  const bar = el("span", { class: percent > 90 ? "meter full" : "meter" }, el("span", {}));
  bar.firstChild.style.width = `${Math.min(100, percent)}%`;
  return [bar, el("small", {}, `${number(percent)} %`)];
}

function ordersCell([name, intent, isFlagged, serves]) {
  const button = (what, label) => el("button", {
    type: "button", class: "order", "data-order": what, "aria-label": `${label} ${name}`, onclick: () => order(what, name),
  }, label);
  return el("span", { class: "orders" },
    intent === "active" ? button("drain", "Drain") : button("resume", "Resume"),
    serves ? (isFlagged ? button("clear", "Clear") : button("flag", "Flag")) : null);
}

function details(backend) {
  const facts = [
    ["Address", backend.address], ["Hosts", backend.hosts.join(", ")], ["Kind", backend.kind],
    ["Health", `${backend.health}: ${backend.health_reason}`],
    ["Intent", backend.intent_reason ? `${backend.intent}: ${backend.intent_reason}` : backend.intent],
    ["Kernel", backend.kernel_detail], ["Build", backend.build || "–"], ["Fingerprint", backend.fingerprint ?? "–"],
    ...backend.gpus.map((one) => [backend.gpus.length > 1 ? `GPU of ${one.host}` : "GPU", gpu(one)]),
  ];
  const models = backend.models.map((model) => el("div", { class: "learned" },
    el("h3", {}, model.model),
    el("p", {}, `Quality: ${model.grade_reason}`),
    model.evidence.length ? el("ul", {}, model.evidence.map((line) => el("li", {}, line))) : null,
    el("dl", {}, [
      ...Object.entries(model.speed).map(([name, one]) => [name.replaceAll("_", " "), learned(one)]),
      ["predicted TTFT", calibrated(model.calibration.ttft)],
      ["predicted end", calibrated(model.calibration.end)],
      ...(model.outliers.last.length ? [["did not fit", outliers(model.outliers)]] : []),
    ].flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)])),
    model.cannot.length ? el("p", {}, `Cannot: ${model.cannot.join(", ")}`) : null));
  const up = backend.health === "healthy";
  const button = el("button", { type: "button", onclick: () => order(up ? "eject" : "readmit", backend.name) }, up ? "Eject…" : "Readmit…");
  return el("div", { class: "inside" },
    el("div", {}, el("dl", {}, facts.flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)])), button), ...models);
}

function learned(one) {
  if (one.samples < 1) return `${number(one.value)} (not learned: ${one.source})`;
  const age = one.age_s === null ? "" : `, ${duration(one.age_s)} old`;
  return `${number(one.value)} ± ${number(one.spread)} (${number(one.samples)} samples${age})`;
}

function calibrated(one) {
  if (!one) return "not learned";
  const answers = Math.round(one.samples);
  return `came after ${number(one.bias)} times that, usually off by ${Math.round(one.error * 100)} % (${answers} answer${answers === 1 ? "" : "s"})`;
}

function outliers({ counts, last }) {
  const newest = last[last.length - 1];
  const how = newest.ratio >= 1 ? `${number(newest.ratio)} times as slow` : `${number(1 / newest.ratio)} times as fast`;
  const kinds = Object.entries(counts).map(([kind, count]) => `${count} ${kind}`).join(", ");
  return `${kinds} (last: ${newest.kind}, ${newest.what} ${how}, ${duration(newest.ago_s)} ago)`;
}

function gpu({ reading, detail }) {
  if (!reading) return detail || "not read";
  const units = [["clock_mhz", "MHz"], ["temperature_c", "°C"], ["power_w", "W"]];
  const text = units.filter(([key]) => reading[key] !== null).map(([key, unit]) => `${Math.round(reading[key])} ${unit}`).join(", ");
  return reading.capped_by.length ? `${text} (clock-capped: ${reading.capped_by.join(", ")})` : text;
}

/** What a person should know, worst first; empty where all is well. */
export function attention(status) {
  const lines = [];
  if (status.backends.length && status.backends.every((one) => ["off", "starting", "ejected"].includes(one.health))) {
    lines.push(["bad", "No backend answers: every call gets 503 until one does"]);
  }
  for (const model of status.models) {
    if (!model.usable.length) lines.push(["bad", `${model.model}: nobody can serve it now`]);
  }
  for (const one of status.backends) {
    if (one.kernel_matches === false) lines.push(["bad", `${one.name}: declared ${one.declared_kernel}, runs ${one.observed_kernel.toUpperCase()}`]);
    for (const model of one.models) {
      if (model.grade === "flagged") lines.push(["bad", `${one.name}: ${model.model} is flagged: ${model.grade_reason}`]);
      if (model.gate) lines.push(["warn", `${one.name}: ${model.model} gets no calls yet: ${model.gate}`]);
    }
    for (const { host, reading } of one.gpus) {
      if (reading?.capped_by.length) lines.push(["warn", `${host}: its GPU's clock is held back (${reading.capped_by.join(", ")}): speeds mean little now`]);
    }
    if (one.health === "ejected") lines.push(["bad", `${one.name}: ejected ${duration(one.health_for_s)} ago: ${one.health_reason}`]);
  }
  if (status.passive) lines.push(["warn", "Passive: the router observes and never acts"]);
  if (!status.history_ok) lines.push(["warn", "What is learned is not kept: the history file cannot be used"]);
  return [...lines.filter(([kind]) => kind === "bad"), ...lines.filter(([kind]) => kind !== "bad")];
}

/** The first lines as they are, the rest behind one: a fleet in trouble still shows its table. */
export function attentionList(lines) {
  const list = (some) => el("ul", {}, some.map(([kind, text]) => el("li", { class: kind }, text)));
  if (lines.length <= SHOWN + 1) return list(lines);
  return [list(lines.slice(0, SHOWN)), el("details", {}, el("summary", {}, `and ${lines.length - SHOWN} more`), list(lines.slice(SHOWN)))];
}
