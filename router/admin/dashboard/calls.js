// Recent calls, newest first; behind each one the decision that sent it where it went.

import { byId, clock, el, number, seconds } from "./dom.js";
import { pill } from "./fleet.js";
import { ask } from "./net.js";
import { colour } from "./plots.js";

const KEPT = 500;
const SHOWN = 200; // rows in the page at once, however many calls there are
const KINDS = { ok: "good", client_error: "none", client_left: "none", shed: "warn", failed: "bad", broken: "bad" };

let calls = []; // newest first
let fresh = [];
let paused = false;
let scheduled = false;
const rows = new Map(); // request id: [row, row with the decision or null]

/** Begin: the calls there were, and the controls. */
export async function startCalls() {
  byId("filter").addEventListener("input", draw);
  byId("outcome").addEventListener("change", draw);
  byId("pause").addEventListener("click", pause);
}

/** All calls that the router remembers; after a restart of it these are others. */
export async function loadCalls() {
  calls = (await ask("/api/calls?limit=200")).reverse();
  fresh = [];
  draw();
}

/** A call has ended. Thousands a second cost one drawing each quarter of one. */
export function addCall(call) {
  fresh.push(call);
  if (fresh.length > KEPT) fresh.shift();
  if (!scheduled) {
    scheduled = true;
    setTimeout(() => {
      scheduled = false;
      if (!paused) draw();
    }, 250);
  }
}

/** Hold the list still, or let it go on. */
export function pause() {
  paused = !paused;
  byId("pause").setAttribute("aria-pressed", String(paused));
  byId("pause").textContent = paused ? "Go on" : "Pause";
  draw();
}

/** The newest calls, for the figures at the top. */
export const newestCalls = () => [...fresh].reverse().concat(calls);

function draw() {
  if (!paused && fresh.length) {
    const known = new Set(calls.slice(0, KEPT).map((call) => call.request_id));
    calls = fresh.reverse().filter((call) => !known.has(call.request_id)).concat(calls).slice(0, KEPT);
    fresh = [];
  }
  const text = byId("filter").value.trim().toLowerCase();
  const outcome = byId("outcome").value;
  const matching = calls.filter((call) => matches(call, text, outcome));
  const shown = matching.slice(0, SHOWN);
  place(shown);
  byId("calls-count").textContent = matching.length > SHOWN ? `newest ${SHOWN} of ${matching.length}` : `${matching.length} calls`;
  byId("calls-empty").hidden = shown.length > 0;
  byId("calls-empty").textContent = calls.length ? "No call matches." : "No call has ended yet.";
}

function matches(call, text, outcome) {
  if (outcome === "bad" && !["failed", "broken", "shed"].includes(call.outcome)) return false;
  if (outcome === "retried" && call.attempts.length < 2) return false;
  if (outcome === "ok" && call.outcome !== "ok") return false;
  if (!text) return true;
  const words = [call.model, call.asked, call.request_id, call.code, call.route, ...call.attempts.map((one) => one.backend)];
  return words.some((word) => word.toLowerCase().includes(text));
}

/** Put exactly these rows into the table, moving only what has to. */
function place(shown) {
  const body = byId("calls").tBodies[0];
  const wanted = [];
  const ids = new Set();
  for (const call of shown) {
    ids.add(call.request_id);
    if (!rows.has(call.request_id)) rows.set(call.request_id, [rowOf(call), null]);
    wanted.push(...rows.get(call.request_id).filter(Boolean));
  }
  for (const [id, pair] of rows) {
    if (!ids.has(id)) {
      pair.forEach((row) => row?.remove());
      rows.delete(id);
    }
  }
  let next = body.firstChild;
  for (const row of wanted) {
    if (row === next) next = next.nextSibling;
    else body.insertBefore(row, next);
  }
}

function rowOf(call) {
  const last = call.attempts.at(-1);
  const decoding = last && last.ttft_s !== null ? last.duration_s - last.ttft_s : 0;
  const rate = call.completion_tokens > 1 && decoding > 0.01 ? (call.completion_tokens - 1) / decoding : null;
  const said = call.outcome === "ok" ? "ok" : `${call.outcome.replace("_", " ")} ${call.status}`;
  const button = el("button", { type: "button", class: "name", "aria-expanded": "false", title: `Why call ${call.request_id} went where it went`,
    onclick: () => toggle(call.request_id, button) }, clock(call.at + call.duration_s));
  const cell = (label, ...children) => el("td", { "data-label": label, class: "number" }, ...children);
  return el("tr", {},
    el("th", { scope: "row" }, button),
    el("td", { "data-label": "Model" }, call.model === "other" ? call.asked.slice(0, 60) || "–" : call.model, call.background ? pill("background", "none") : null),
    el("td", { "data-label": "Backend" }, call.attempts.length ? call.attempts.map(attempt) : "–"),
    el("td", { "data-label": "Outcome" }, pill(said, KINDS[call.outcome] ?? "none", call.code)),
    cell("TTFT", seconds(call.ttft_s)), cell("Tok/s", number(rate)),
    cell("Prompt", number(call.prompt_tokens), call.cached_tokens ? el("small", {}, `${number(call.cached_tokens)} cached`) : null),
    cell("Answer", number(call.completion_tokens)), cell("Took", seconds(call.duration_s)));
}

function attempt(one, index) {
  const dot = el("span", { class: "swatch" });
  dot.style.background = colour(one.backend);
  return el("span", { class: one.failure ? "attempt failed" : "attempt", title: one.failure ? `${one.failure}: ${one.detail}` : one.reason },
    index ? "→ " : null, dot, one.backend);
}

async function toggle(id, button) {
  const pair = rows.get(id);
  const open = pair[1] !== null;
  button.setAttribute("aria-expanded", String(!open));
  if (open) {
    pair[1].remove();
    pair[1] = null;
    return;
  }
  const cell = el("td", { colspan: 9 }, "…");
  pair[1] = el("tr", { class: "details" }, cell);
  pair[0].after(pair[1]);
  try {
    cell.replaceChildren(explained(await ask(`/api/explain/${encodeURIComponent(id)}`)));
  } catch (error) {
    cell.replaceChildren(el("p", { class: "muted" }, error.message));
  }
}

const TERMS = [["wait_s", "wait"], ["prefill_s", "prefill"], ["decode_s", "decode"], ["others_s", "delay to others"], ["slo_s", "over its promise"], ["bonus_s", "bonus"]];

function explained(found) {
  const ended = found.call;
  return el("div", { class: "inside" },
    el("div", { class: "facts" },
      el("p", {}, el("code", {}, found.request_id), ended ? ` ${ended.route}${ended.stream ? ", streamed" : ""}` : null),
      ended?.predicted_end_s ? el("p", {}, `Predicted: first token after ${seconds(ended.predicted_ttft_s)}, end after ${seconds(ended.predicted_end_s)}. Was: ${seconds(ended.ttft_s)}, ${seconds(ended.duration_s)}.`) : null,
      ended?.queued_s > 0.001 ? el("p", {}, `Queued for ${seconds(ended.queued_s)}`) : null,
      ...(ended?.attempts ?? []).filter((one) => one.failure).map((one) => el("p", { class: "wrong" }, `${one.backend}: ${one.detail || one.failure}`))),
    ...found.decisions.map(decision));
}

function decision(one, index) {
  const most = Math.max(1e-9, ...one.candidates.filter((row) => !row.barred).map((row) => row.cost_s));
  return el("div", { class: "decision" },
    el("p", {}, el("b", {}, `${index ? `Attempt ${index + 1}: ` : ""}${one.chosen ?? "nobody"}`), ` – ${one.reason}`,
      el("small", {}, `policy ${one.policy}; about ${number(one.call.prompt_tokens)} prompt and ${number(one.call.output_tokens)} answer tokens expected`)),
    el("table", { class: "candidates" },
      el("thead", {}, el("tr", {}, ["Candidate", "Expected cost", "", "In flight", "Warm tokens"].map((name) => el("th", { scope: "col" }, name || el("span", { class: "hidden" }, "Parts of the cost"))))),
      el("tbody", {}, one.candidates.map((row) => el("tr", { class: row.name === one.chosen ? "chosen" : "" },
        el("th", { scope: "row" }, row.name),
        row.barred ? el("td", { colspan: 2, class: "wrong" }, row.barred) : [el("td", { class: "number" }, seconds(row.cost_s)), el("td", {}, parts(row, most))],
        el("td", { class: "number" }, number(row.in_flight)), el("td", { class: "number" }, number(row.warm_tokens)))))),
    el("p", { class: "terms" }, TERMS.slice(0, 4).map(([key, name]) => el("span", {}, el("span", { class: `swatch ${key}` }), name))));
}

function parts(row, most) {
  const text = TERMS.filter(([key]) => row[key]).map(([key, name]) => `${name} ${seconds(row[key])}`).join(", ");
  return el("span", { class: "cost", title: text, role: "img", "aria-label": text }, TERMS.slice(0, 4).map(([key]) => {
    const part = el("span", { class: key });
    part.style.width = `${Math.max(0, (row[key] / most) * 100)}%`;
    return part;
  }));
}
