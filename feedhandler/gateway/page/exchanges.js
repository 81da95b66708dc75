// The exchanges: a line for all of them, and behind it each with its connections.

import { element, micros, put, span } from "./text.js";

const STATES = { live: "good", idle: "plain", unknown: "plain", stale: "warn", connecting: "warn", starting: "warn" };

export class Exchanges {
  /**
   * steer(exchange, "connect" | "disconnect" | "rollover") is called by the buttons; news(text) tells changes;
   * newest(exchange) is when its newest data were received, in ns.
   */
  constructor(now, steer, news, newest) {
    this.now = now;
    this.steer = steer;
    this.news = news;
    this.newest = newest;
    this.isKnown = false; // whether the merger sends: else nothing is known of any
    this.rows = new Map(); // exchange → ExchangeRow
    this.made = new Map();
    this.body = document.querySelector("#exchanges tbody");
    this.strip = document.querySelector("#exchanges .strip");
    setInterval(() => this.draw(), 1000);
  }

  replace(rows) {
    for (const row of Object.values(rows)) this.take(row, true);
  }

  take(row, isFirst = false) {
    const before = this.rows.get(row.exchange);
    this.rows.set(row.exchange, row);
    const [was, is] = [before?.status?.state, row.status?.state];
    if (!isFirst && was && was !== is) this.news(`${row.exchange} is ${is ?? "unknown"}`);
    this.update(row);
  }

  names() {
    return [...this.rows.keys()];
  }

  /** The status of an exchange, null where it is not known; what was said before the merger fell silent is old. */
  status(row) {
    return this.isKnown ? row.status : null;
  }

  /** Whether somebody wants a symbol; null: not known. What nobody wants is DOWN on purpose. */
  isWanted(exchange, symbol) {
    const row = this.rows.get(exchange);
    const feed = row && this.status(row)?.feed;
    if (!feed) return null;
    return feed.wanted[symbol]?.includes("ticker") || Object.values(feed.renamed).includes(symbol);
  }

  draw() {
    for (const row of this.rows.values()) this.update(row);
  }

  make(row) {
    const made = { row: element("tr"), legs: [], cells: {}, chip: element("span"), state: element("span"), figures: element("span", "", "quiet") };
    made.chip.append(element("b", row.exchange), made.state, " ", made.figures);
    this.strip.append(made.chip);
    const name = element("th", row.exchange);
    name.scope = "row";
    made.row.append(name);
    for (const key of ["state", "rate", "p50", "p99", "newest", "text", "buttons"]) {
      made.cells[key] = element("td", "", ["state", "buttons"].includes(key) ? "" : key === "text" ? "text" : "number");
      made.row.append(made.cells[key]);
    }
    made.toggle = element("button");
    made.toggle.type = "button";
    made.toggle.addEventListener("click", () => {
      const isOn = this.rows.get(row.exchange).connect;
      this.steer(row.exchange, isOn ? "disconnect" : "connect");
    });
    const renew = element("button", "Renew");
    renew.type = "button";
    renew.setAttribute("aria-label", `Renew the connections of ${row.exchange}`);
    renew.addEventListener("click", () => this.steer(row.exchange, "rollover"));
    made.cells.buttons.append(made.toggle, " ", renew);
    this.body.append(made.row);
    this.made.set(row.exchange, made);
    return made;
  }

  update(row) {
    const made = this.made.get(row.exchange) ?? this.make(row);
    const { cells } = made;
    const status = this.status(row);
    const state = status?.state ?? "unknown";
    const classes = `badge ${STATES[state] ?? "bad"}`;
    if (cells.state.textContent !== state) cells.state.replaceChildren(element("span", state, classes));
    put(made.state, state);
    made.state.className = classes;
    const rate = status ? Math.round(status.records_per_s).toLocaleString("en") : "–";
    const newest = status && this.newest(row.exchange);
    const age = newest ? span((this.now() - newest / 1e6) / 1000) : "–";
    put(cells.rate, rate);
    put(cells.p50, micros(status?.latency_p50_us));
    put(cells.p99, micros(status?.latency_p99_us));
    put(cells.newest, age);
    put(cells.text, status ? row.text : "not known: the merger is silent");
    put(made.figures, status ? `${rate}/s, p50 ${micros(status.latency_p50_us)}, data ${age} old` : "");
    put(made.toggle, row.connect ? "Disconnect" : "Connect");
    made.toggle.setAttribute("aria-label", `${row.connect ? "Disconnect from" : "Connect to"} ${row.exchange}`);
    this.updateLegs(made, status?.feed?.connections ?? [], status?.feed?.stale_topics ?? {});
  }

  updateLegs(made, connections, staleTopics) {
    while (made.legs.length > connections.length) made.legs.pop().row.remove();
    connections.forEach((connection, index) => {
      let leg = made.legs[index];
      if (!leg) {
        leg = { row: element("tr", "", "leg"), name: element("td"), state: element("td"), text: element("td", "", "text") };
        leg.text.colSpan = 6;
        leg.row.append(leg.name, leg.state, leg.text);
        (made.legs.at(-1)?.row ?? made.row).after(leg.row);
        made.legs.push(leg);
      }
      put(leg.name, `leg ${connection.leg}${connection.is_successor ? ", successor" : ""}`);
      put(leg.state, connection.is_stale ? "stale" : connection.phase);
      put(leg.text, this.legText(connection, index ? {} : staleTopics));
    });
  }

  legText(connection, staleTopics) {
    const parts = [];
    if (connection.opened_ns) parts.push(`up ${span((this.now() - connection.opened_ns / 1e6) / 1000)}`);
    parts.push(`${connection.symbols} symbols`, `${Math.max(0, connection.connects - 1)} reconnects`);
    parts.push(`${connection.frames.toLocaleString("en")} frames`);
    if (connection.duplicate) parts.push(`${connection.duplicate.toLocaleString("en")} duplicate`);
    if (connection.decode_errors) parts.push(`${connection.decode_errors} undecodable`);
    const stale = Object.keys(staleTopics);
    if (stale.length) parts.push(`stale: ${stale.slice(0, 5).join(", ")}`);
    if (connection.silent) parts.push(`silent: ${connection.silent_topics.slice(0, 5).join(", ")}`);
    if (connection.last_error) parts.push(`last error: ${connection.last_error}`);
    return parts.join(" · ");
  }
}
