// The one dialog: asks before an order is given, and shows what a reload would change.

import { byId, el, say } from "./dom.js";
import { ask } from "./net.js";

/** Show the dialog; resolves to the value of the button that closed it ("" for Escape). */
export function show(title, content, buttons) {
  const dialog = byId("dialog");
  const form = dialog.querySelector("form");
  form.replaceChildren(
    el("h2", { id: "dialog-title" }, title),
    ...[content].flat(),
    el("div", { class: "buttons" }, buttons.map(([value, label, kind]) => el("button", { value, class: kind }, label))),
  );
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue), { once: true });
  });
}

const ORDERS = {
  drain: ["Drain", "It gets no new calls; what is in flight finishes.", "intent", { intent: "draining" }],
  resume: ["Resume", "It gets calls again.", "intent", { intent: "active" }],
  flag: ["Flag", "Its answers count as wrong: it gets no calls while another backend can serve them.", "grade", { flagged: true }],
  clear: ["Clear", "The flag is lifted; its answers count as not checked yet.", "grade", { flagged: false }],
  eject: ["Eject", "It is treated as down until its probes say otherwise.", "health", { up: false }],
  readmit: ["Readmit", "It is treated as healthy now, without trial calls.", "health", { up: true }],
};

/** Ask, then give an order to a backend. */
export async function order(name, backend) {
  const [label, meaning, path, document] = ORDERS[name];
  const why = el("input", { type: "text", id: "why", maxlength: 200, placeholder: "kept with the change", autocomplete: "off" });
  const content = [el("p", {}, meaning), el("label", { for: "why" }, "Why (optional)"), why];
  const kind = name === "flag" || name === "eject" ? "main danger" : "main";
  // The first button is what Enter presses in the field; it stands last on screen.
  const pressed = await show(`${label} ${backend}?`, content, [["do", label, kind], ["", "Cancel", ""]]);
  if (pressed !== "do") return;
  try {
    await ask(`/api/backends/${encodeURIComponent(backend)}/${path}`, { ...document, why: why.value });
    say(`${backend}: ${label.toLowerCase()} done`);
  } catch (error) {
    say(`${backend}: ${error.message}`, true);
  }
}

/** Show what a reload would change, then do it if that is wanted. */
export async function reload() {
  let found;
  try {
    found = await ask("/api/reload", { dry_run: true }, [409]);
  } catch (error) {
    say(error.message, true);
    return;
  }
  if (found.error) {
    await show("Nothing to reload", el("p", {}, found.error.message), [["", "Close", ""]]);
    return;
  }
  const nothing = found.diff === "nothing changes" && !found.reason;
  const buttons = nothing ? [["", "Close", ""]] : found.reason
    ? [...(found.lost.length ? [["force", "Apply anyway", "main danger"]] : []), ["", "Cancel", ""]]
    : [["apply", "Apply", "main"], ["", "Cancel", ""]];
  const pressed = await show("Reload the fleet file", changes(found), buttons);
  if (pressed) await apply(pressed === "force");
}

async function apply(force) {
  try {
    const found = await ask("/api/reload", { force }, [409]);
    if (found.applied) say(`generation ${found.generation} is in force`);
    else say(`refused: ${found.reason ?? found.error?.message}`, true);
  } catch (error) {
    say(error.message, true);
  }
}

function changes(found) {
  const kinds = { "+": "added", "-": "removed", "~": "changed" };
  const lines = found.diff.split("\n").filter(Boolean);
  const silent = Object.entries(found.answers).filter(([, answers]) => !answers).map(([name]) => name);
  return [
    lines.length ? el("pre", { class: "diff", tabindex: "0" }, lines.map((line) => el("span", { class: kinds[line[0]] ?? "" }, `${line}\n`))) : null,
    silent.length ? el("p", { class: "warn" }, `Does not answer yet, gets calls when it does: ${silent.join(", ")}`) : null,
    found.swap ? el("p", { class: "warn" }, `A swap: calls of ${found.lost.join(", ")} wait while the new backend loads.`) : null,
    found.reason ? el("p", { class: "wrong" }, `Refused: ${found.reason}`) : null,
    el("p", { class: "muted" }, `Generation ${found.generation} is in force.`),
  ].filter(Boolean);
}

/** What the keys do. */
export function help() {
  const keys = [["R", "reload: show what would change"], ["T", "light or dark"], ["/", "filter the calls"],
    ["P", "hold the calls still"], ["F", "go to the fleet"], ["?", "this list"]];
  show("Keys", el("dl", { class: "keys" }, keys.flatMap(([key, meaning]) => [el("dt", {}, el("kbd", {}, key)), el("dd", {}, meaning)])),
    [["", "Close", ""]]);
}
