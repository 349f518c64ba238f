// Wires the page together: one stream of events in, the fleet, the plots and the calls out.

import { addCall, loadCalls, newestCalls, pause, startCalls } from "./calls.js";
import { help, reload } from "./dialog.js";
import { byId, clock, duration, el, fill, number, say, seconds } from "./dom.js";
import { attention, attentionList, showFleet } from "./fleet.js";
import { Stream } from "./net.js";
import { forgetPlots, startPlots, tokensNow, updatePlots } from "./plots.js";

const MARKED = ["QualityChanged", "Reloaded", "BuildChanged", "KernelObserved", "HealthChanged", "IntentChanged"];
let status = null;
let connection = "connecting";
let plotted = 0;

function show() {
  showFleet(status);
  fill(byId("summary"), [status.version, duration(status.now - status.started_at), status.generation], ([version, up, generation]) =>
    `${version} · up ${up} · generation ${generation}`);
  const lines = attention(status);
  byId("attention").hidden = lines.length === 0;
  fill(byId("attention"), lines, attentionList);
  showTiles();
  document.title = lines.some(([kind]) => kind === "bad") ? "⚠ spark-router" : "spark-router";
}

function showTiles() {
  const known = newestCalls();
  const calls = known.slice(0, 100);
  const firsts = calls.map((call) => call.ttft_s).filter((one) => one !== null).sort((one, other) => one - other);
  const bad = calls.filter((call) => ["failed", "broken", "shed"].includes(call.outcome)).length;
  const minute = known.filter((call) => call.at + call.duration_s > status.now - 60).length;
  const usable = status.backends.filter((one) => one.health === "healthy" && one.intent === "active").length;
  const tiles = [
    ["Tokens per second", number(tokensNow()), ""],
    ["TTFT, median", seconds(firsts.length ? firsts[Math.floor(firsts.length / 2)] : null), ""],
    ["Calls open", String(status.calls_open), ""],
    ["Queued", String(status.queued), status.queued ? "warn" : ""],
    ["Calls, last minute", minute >= 500 ? "500+" : String(minute), ""],
    [`Failed of last ${calls.length || 100}`, calls.length ? String(bad) : "–", bad ? "bad" : ""],
    ["Backends serving", `${usable} of ${status.backends.length}`, usable ? "" : "bad"],
  ];
  fill(byId("tiles"), tiles, () => tiles.map(([name, value, kind]) => el("div", { class: `tile ${kind}` }, el("span", {}, name), el("b", {}, value))));
}

async function plot() {
  plotted = Date.now();
  try {
    await updatePlots(status.backends.map((one) => one.name));
  } catch {
    // The stream notices a router that is gone, and says so.
  }
}

function onEvent(name, document) {
  if (name === "CallEnded") {
    addCall(document);
    return;
  }
  if (name !== "status") {
    if (name === "Reloaded" && !document.ok) say(`reload refused: ${document.reason}`, true);
    plotted = 0;
    return;
  }
  const before = status;
  status = document;
  if (before && before.version !== status.version) location.reload();
  if (before === null || before.started_at !== status.started_at) {
    forgetPlots();
    loadCalls().catch(() => {});
  }
  show();
  if (Date.now() - plotted > 5000) plot();
}

const SAID = { live: "live", away: "not reached", "signed-out": "signed out", connecting: "connecting" };

function onState(now) {
  if (now === connection) return;
  const before = connection;
  connection = now;
  document.body.dataset.connection = now;
  byId("connection-text").textContent = SAID[now];
  const banner = byId("banner");
  banner.hidden = now === "live";
  if (now === "live" && before === "away") {
    say("the router answers again");
    loadCalls().catch(() => {});
  }
  const last = status ? ` What you see is from ${clock(status.now)}.` : "";
  if (now === "away") banner.replaceChildren(`The router does not answer; this page tries again by itself.${last}`);
  if (now === "signed-out") banner.replaceChildren(`The admin token has changed or this page has expired.${last} `, el("a", { href: "/" }, "Sign in again"));
}

function theme() {
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  const now = document.documentElement.dataset.theme ?? (dark ? "dark" : "light");
  const next = now === "dark" ? "light" : "dark";
  document.documentElement.dataset.theme = next;
  localStorage.setItem("theme", next);
}

const KEYS = {
  r: reload, t: theme, p: pause, "?": help,
  "/": () => byId("filter").focus(),
  f: () => byId("fleet").querySelector("button")?.focus(),
};

document.addEventListener("keydown", (event) => {
  const typing = event.target.closest("input, select, textarea");
  if (event.key === "Escape" && event.target === byId("filter")) byId("filter").blur();
  if (typing || event.ctrlKey || event.metaKey || event.altKey || byId("dialog").open) return;
  const action = KEYS[event.key.toLowerCase()];
  if (action) {
    event.preventDefault();
    action();
  }
});
document.addEventListener("redraw", () => status && showFleet(status));
byId("reload").addEventListener("click", reload);
byId("theme").addEventListener("click", theme);
byId("help").addEventListener("click", help);
const chosen = localStorage.getItem("theme");
if (chosen === "dark" || chosen === "light") document.documentElement.dataset.theme = chosen;
startPlots();
startCalls();
new Stream(["status", "CallEnded", ...MARKED], onEvent, onState);
