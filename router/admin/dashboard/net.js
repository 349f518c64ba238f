// Talking to the router: requests, and the stream of events that comes back by itself whatever happens.

export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** GET or, with a document, POST; the parsed answer. Statuses in `accept` are answers too. */
export async function ask(path, document = null, accept = []) {
  const options = document === null
    ? { cache: "no-store", headers: { accept: "application/json" } }
    : { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(document) };
  const answer = await fetch(path, options);
  const found = await answer.json().catch(() => ({}));
  if (!answer.ok && !accept.includes(answer.status)) {
    throw new Refused(answer.status, found.error?.message ?? `the router answered ${answer.status}`);
  }
  return found;
}

const SILENCE_MS = 6000; // a status comes every second
const HIDDEN_MS = 60000; // browsers allow six streams to one address: a page nobody sees gives its one back

/**
 * The router's events.
 * `on(name, document)` is called for each, `state(name)` with "live", "away" (it does not answer) or "signed-out".
 */
export class Stream {
  constructor(names, on, state) {
    Object.assign(this, { names, on, state, source: null, tries: 0, heard: 0, timer: 0 });
    this.open();
    setInterval(() => this.watch(), 1000);
    let hiding = 0;
    document.addEventListener("visibilitychange", () => {
      clearTimeout(hiding);
      if (document.hidden) hiding = setTimeout(() => this.close(), HIDDEN_MS);
      else if (!this.source) this.look();
    });
  }

  open() {
    this.close();
    const source = this.source = new EventSource("/api/events");
    this.heard = Date.now();
    for (const name of this.names) {
      source.addEventListener(name, (event) => {
        this.heard = Date.now();
        if (name === "status") {
          this.tries = 0;
          this.state("live");
        }
        this.on(name, JSON.parse(event.data));
      });
    }
    source.onerror = () => this.lost();
  }

  close() {
    this.source?.close();
    this.source = null;
    clearTimeout(this.timer);
  }

  watch() {
    if (this.source && Date.now() - this.heard > SILENCE_MS) this.lost();
  }

  lost() {
    this.close();
    this.look();
  }

  /** An event stream does not say why it ended; a plain request does. */
  async look() {
    clearTimeout(this.timer);
    try {
      await ask("/api/status");
      this.open();
    } catch (error) {
      this.state(error instanceof Refused && [401, 421].includes(error.status) ? "signed-out" : "away");
      this.tries += 1;
      this.timer = setTimeout(() => this.look(), Math.min(10000, 500 * 2 ** this.tries));
    }
  }
}
