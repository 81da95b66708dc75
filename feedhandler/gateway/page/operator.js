// What needs the token: balances, and every change. The token stays in this tab's sessionStorage: a reload keeps it,
// other tabs and later sessions do not have it.

import { element, put, span } from "./text.js";

const KEY = "feedhandler-token";
const OWNER = "dashboard"; // whose wishes are those of this page
const KIND = "ticker"; // what this page shows, and subscribes to
const HELD = { holdings: "because an account holds it", positions: "because it is held elsewhere" }; // the gateway's own owners
const SAID_MS = 10000;

export function token() {
  return sessionStorage.getItem(KEY) ?? "";
}

export async function ask(method, path, body) {
  const headers = token() ? { Authorization: `Bearer ${token()}` } : {};
  if (body !== undefined) headers["Content-Type"] = "application/json";
  const answer = await fetch(path, { method, headers, body: body === undefined ? undefined : JSON.stringify(body) });
  const text = await answer.text();
  const decoded = text ? JSON.parse(text) : null;
  if (!answer.ok) throw new Error(words(answer.status, decoded));
  return decoded;
}

/** What the gateway refused, as a user of this page would say it. */
function words(status, problem) {
  if (status === 401) return token() ? "wrong token" : "enter the token first";
  return problem?.detail ?? `the gateway answered HTTP ${status}`;
}

export class Operator {
  /** onToken is called when there is another token. */
  constructor(now, onToken) {
    this.now = now;
    this.accounts = new Map();
    this.find("#token").value = token();
    this.find("#token-form").addEventListener("submit", (event) => {
      event.preventDefault();
      sessionStorage.setItem(KEY, this.find("#token").value.trim());
      this.say("#token-state", "asking …");
      onToken();
    });
    this.find("#forget").addEventListener("click", () => {
      sessionStorage.removeItem(KEY);
      location.reload();
    });
    this.find("#subscribe-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.subscribe(event.submitter?.value ?? "subscribe");
    });
    this.find("#subscribe-symbol").addEventListener("input", () => {
      this.say("#subscribe-state", "");
      this.suggest();
    });
    this.find("#subscribe-exchange").addEventListener("input", () => this.say("#subscribe-state", ""));
    this.find("#token").addEventListener("input", () => this.say("#token-state", ""));
    this.find("#sync").addEventListener("click", () => this.run("#balances-state", () => ask("POST", "/v1/balances/sync").then(() => "looked")));
    setInterval(() => this.drawState(), 1000);
  }

  find(selector) {
    return document.querySelector(selector);
  }

  say(selector, text, isError = false) {
    const place = this.find(selector);
    put(place, text);
    place.classList.toggle("error", isError);
  }

  /** Do some work, and say how it ended: in the words that it returns. A success is not said for ever. */
  async run(selector, work) {
    try {
      const text = await work();
      this.say(selector, text);
      setTimeout(() => this.find(selector).textContent === text && this.say(selector, ""), SAID_MS);
    } catch (error) {
      this.say(selector, error.message, true);
    }
  }

  /** There is a connection, a new one perhaps: what was said of the one before does not hold any more. */
  connected() {
    this.say("#steer-state", "");
  }

  setExchanges(names) {
    const select = this.find("#subscribe-exchange");
    if (select.length !== names.length) select.replaceChildren(...names.map((name) => new Option(name)));
  }

  authorized() {
    this.say("#token-state", "accepted");
    // What was refused for want of it may be tried again.
    for (const place of ["#steer-state", "#subscribe-state"])
      if (this.find(place).classList.contains("error")) this.say(place, "");
    this.find("#sync").hidden = false;
  }

  refused(detail) {
    this.say("#token-state", detail.startsWith("token:") ? "wrong token" : detail, true);
  }

  /** Return the symbols of an exchange that have a text in them; none where that cannot be asked. */
  async search(exchange, text) {
    const query = new URLSearchParams({ exchange, search: text, limit: "20" });
    try {
      return (await ask("GET", `/v1/instruments?${query}`)).instruments.filter((i) => i.is_trading).map((i) => i.symbol);
    } catch {
      return []; // what is typed is asked for as it is
    }
  }

  async suggest() {
    const [exchange, text] = [this.find("#subscribe-exchange").value, this.find("#subscribe-symbol").value.trim()];
    if (text.length < 2) return;
    this.find("#symbols").replaceChildren(...(await this.search(exchange, text)).map((symbol) => new Option(symbol)));
  }

  /** Return the symbol that is meant: some have small letters in them, and the exchange's list knows which. */
  async symbol(exchange) {
    const typed = this.find("#subscribe-symbol").value.trim();
    const alike = (await this.search(exchange, typed)).filter((each) => each.toUpperCase() === typed.toUpperCase());
    if (alike.length) return alike.includes(typed) ? typed : alike[0];
    return typed === typed.toLowerCase() ? typed.toUpperCase() : typed;
  }

  subscribe(what) {
    const exchange = this.find("#subscribe-exchange").value;
    return this.run("#subscribe-state", async () => {
      const symbol = await this.symbol(exchange);
      return what === "subscribe" ? this.want(exchange, symbol) : this.unwant(exchange, symbol);
    });
  }

  async want(exchange, symbol) {
    const answer = await ask("POST", "/v1/subscriptions", { exchange, symbols: [symbol], owner: OWNER });
    if (answer.refused[symbol]) throw new Error(answer.refused[symbol]);
    return `${symbol} of ${exchange} is subscribed`;
  }

  async unwant(exchange, symbol) {
    const present = (await ask("GET", `/v1/subscriptions?exchange=${exchange}`)).exchanges[exchange];
    if (!present.requested[OWNER]?.[symbol]?.includes(KIND)) throw new Error(this.whose(present, symbol));
    const path = symbol.split("/").map(encodeURIComponent).join("/");
    const answer = await ask("DELETE", `/v1/subscriptions/${exchange}/${path}?owner=${OWNER}`);
    const others = answer.wanted[symbol]?.includes(KIND) ? `, but ${this.whose(answer, symbol)}` : "";
    return `${symbol} of ${exchange} is unsubscribed${others}`;
  }

  /** Say who wants a symbol besides this page. */
  whose(present, symbol) {
    if (!present.wanted[symbol]?.includes(KIND)) return `nobody has subscribed to ${symbol}`;
    if (present.configured.includes(symbol) && present.kinds.includes(KIND)) return "this symbol comes from the configuration file";
    const owner = Object.keys(present.requested).find((name) => present.requested[name][symbol]?.includes(KIND));
    if (!owner) return "this symbol stands in while the configuration file has none";
    return HELD[owner] ? `this symbol is watched ${HELD[owner]}` : `this symbol was subscribed by ${owner}`;
  }

  async steer(exchange, what) {
    if (what === "disconnect" && !(await this.isSure(exchange))) return;
    const doing = { connect: "is to be connected to", disconnect: "is to be disconnected from", rollover: "renews its connections" };
    await this.run("#steer-state", async () => {
      await ask("POST", `/v1/exchanges/${exchange}/${what}`);
      return `${exchange} ${doing[what]}`;
    });
  }

  /** Ask once before an exchange goes away for everybody. */
  isSure(exchange) {
    const dialog = this.find("#sure");
    put(this.find("#sure-title"), `Disconnect from ${exchange}?`);
    put(this.find("#sure-text"), "All its symbols will be DOWN for every subscriber, until somebody connects it again.");
    dialog.returnValue = "";
    dialog.showModal();
    return new Promise((done) => dialog.addEventListener("close", () => done(dialog.returnValue === "yes"), { once: true }));
  }

  takeAccount(status) {
    this.accounts.set(status.exchange, status);
    const rows = [...this.accounts.values()].flatMap((account) =>
      account.balances.map((balance) => {
        const row = element("tr");
        const name = element("th", account.exchange);
        name.scope = "row";
        row.append(name, element("td", balance.asset));
        for (const amount of [balance.free, balance.locked, balance.total]) row.append(element("td", amount, "number"));
        return row;
      }),
    );
    this.find("#balances tbody").replaceChildren(...rows);
    this.find("#balances").hidden = !rows.length;
    this.drawState();
  }

  drawState() {
    if (!this.accounts.size) return;
    const texts = [...this.accounts.values()].map((account) => {
      if (account.state === "off") return `${account.exchange}: no credentials`;
      const age = account.as_of_ns ? `, as of ${span((this.now() - account.as_of_ns / 1e6) / 1000)} ago` : "";
      const trouble = account.error ?? account.incomplete;
      const error = trouble ? `: ${trouble.message}; ${trouble.remedy}` : "";
      const drift = account.drifts ? `, ${account.drifts} drifts` : "";
      return `${account.exchange}: ${account.state}${age}, stream ${account.stream}${drift}${error}`;
    });
    this.say("#balances-state", texts.join(" · "), [...this.accounts.values()].some((account) => account.error ?? account.incomplete));
  }
}
