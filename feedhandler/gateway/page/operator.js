// What needs the token: balances, and every change. The token stays in this tab's sessionStorage: a reload keeps it,
// other tabs and later sessions do not have it.

import { element, put, span } from "./text.js";

const KEY = "feedhandler-token";

export function token() {
  return sessionStorage.getItem(KEY) ?? "";
}

export async function ask(method, path, body) {
  const headers = token() ? { Authorization: `Bearer ${token()}` } : {};
  if (body !== undefined) headers["Content-Type"] = "application/json";
  const answer = await fetch(path, { method, headers, body: body === undefined ? undefined : JSON.stringify(body) });
  const text = await answer.text();
  const decoded = text ? JSON.parse(text) : null;
  if (!answer.ok) throw new Error(decoded?.detail ?? `HTTP ${answer.status}`);
  return decoded;
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
    this.find("#subscribe-symbol").addEventListener("input", () => this.suggest());
    this.find("#sync").addEventListener("click", () => this.run("#balances-state", () => ask("POST", "/v1/balances/sync"), "looked"));
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

  async run(selector, work, done) {
    try {
      await work();
      this.say(selector, done);
    } catch (error) {
      this.say(selector, error.message, true);
    }
  }

  setExchanges(names) {
    const select = this.find("#subscribe-exchange");
    if (select.length !== names.length) select.replaceChildren(...names.map((name) => new Option(name)));
  }

  authorized() {
    this.say("#token-state", "accepted");
    this.find("#sync").hidden = false;
  }

  refused(detail) {
    this.say("#token-state", detail, true);
  }

  async suggest() {
    const [exchange, text] = [this.find("#subscribe-exchange").value, this.find("#subscribe-symbol").value.trim()];
    if (text.length < 2) return;
    const query = new URLSearchParams({ exchange, search: text, limit: "20" });
    try {
      const found = await ask("GET", `/v1/instruments?${query}`);
      this.find("#symbols").replaceChildren(...found.instruments.filter((i) => i.is_trading).map((i) => new Option(i.symbol)));
    } catch {
      this.find("#symbols").replaceChildren(); // what is typed is asked for as it is
    }
  }

  symbol() {
    const typed = this.find("#subscribe-symbol").value.trim();
    const alike = [...this.find("#symbols").options].map((option) => option.value).filter((s) => s.toUpperCase() === typed.toUpperCase());
    if (alike.length) return alike.includes(typed) ? typed : alike[0]; // some have small letters in them
    return typed === typed.toLowerCase() ? typed.toUpperCase() : typed;
  }

  subscribe(what) {
    const exchange = this.find("#subscribe-exchange").value;
    const symbol = this.symbol();
    const work =
      what === "subscribe"
        ? () => ask("POST", "/v1/subscriptions", { exchange, symbols: [symbol], owner: "dashboard" })
        : () => ask("DELETE", `/v1/subscriptions/${exchange}/${symbol.split("/").map(encodeURIComponent).join("/")}?owner=dashboard`);
    return this.run("#subscribe-state", work, `${symbol} of ${exchange}: ${what}d`);
  }

  steer(exchange, what) {
    const doing = { connect: "is to be connected to", disconnect: "is to be disconnected from", rollover: "renews its connections" };
    return this.run("#steer-state", () => ask("POST", `/v1/exchanges/${exchange}/${what}`), `${exchange} ${doing[what]}`);
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
