// Trades and depth of one symbol, which the user chooses of those that have some. Nothing is asked for while the card
// is hidden.

import { element, price, put } from "./text.js";

const KINDS = ["depth", "trade"];
const LEVELS = 8; // of a side
const TRADES = 12;
const DRAW_MS = 200;
const KEY = "feedhandler-market"; // in sessionStorage, so that a reload keeps it

export class Market {
  /** send(message) goes to the gateway. */
  constructor(send) {
    this.send = send;
    this.topics = new Map(); // "exchange symbol" → kinds that are wanted of it
    this.card = document.querySelector("#market");
    this.select = document.querySelector("#watched");
    this.asks = this.levels("#asks").reverse(); // the best is next to the bids
    this.bids = this.levels("#bids");
    this.tape = document.querySelector("#trades tbody");
    this.clear();
    this.select.addEventListener("input", () => {
      sessionStorage.setItem(KEY, this.select.value);
      this.ask();
    });
    setInterval(() => this.draw(), DRAW_MS);
  }

  levels(selector) {
    return Array.from({ length: LEVELS }, () => {
      const [row, size, at] = [element("tr"), element("td", "", "number"), element("td", "", "number")];
      row.append(at, size);
      document.querySelector(selector).append(row);
      return { row, at, size };
    });
  }

  clear() {
    this.depth = this.trades = null;
    this.last = [];
    this.passedOver = 0;
    this.isChanged = true;
  }

  /** There is a new connection, which knows nothing of what was asked for. */
  connected(rows) {
    this.asked = "";
    this.replace(rows);
    this.choose();
  }

  /** What is wanted of the exchanges: rows of the gateway. */
  replace(rows) {
    const topics = new Map();
    for (const row of rows)
      for (const [name, kinds] of Object.entries(row.status?.feed?.wanted ?? {})) {
        const symbol = row.status.feed.renamed[name] ?? name;
        const found = KINDS.filter((kind) => kinds.includes(kind));
        if (found.length) topics.set(`${row.exchange} ${symbol}`, found);
      }
    if (!topics.size && this.topics.size && !rows.some((row) => row.status)) return; // the merger is silent
    if (JSON.stringify([...topics]) === JSON.stringify([...this.topics])) return;
    this.topics = topics;
    const chosen = this.select.value || sessionStorage.getItem(KEY);
    this.select.replaceChildren(...[...topics.keys()].map((topic) => new Option(topic)));
    if (topics.has(chosen)) this.select.value = chosen;
    this.choose();
  }

  choose() {
    this.card.hidden = !this.topics.size;
    this.ask();
  }

  ask() {
    const topic = this.card.hidden ? "" : this.select.value;
    const wanted = `${topic}: ${this.topics.get(topic) ?? ""}`;
    if (wanted === this.asked) return;
    const [exchange, symbol] = topic.split(" ");
    const isNew = this.asked !== "";
    this.clear();
    this.kinds = this.topics.get(topic) ?? [];
    for (const kind of KINDS) {
      const symbols = this.kinds.includes(kind) ? [symbol] : [];
      if (symbols.length || isNew) this.send({ type: "subscribe", kind, symbols, exchanges: symbols.length ? [exchange] : null });
    }
    this.asked = wanted;
    document.querySelector("#ladder").hidden = !this.kinds.includes("depth");
    document.querySelector("#tape").hidden = !this.kinds.includes("trade");
  }

  isChosen(data) {
    return `${data.exchange} ${data.symbol}` === this.select.value && !this.card.hidden;
  }

  takeDepth(data) {
    if (!this.isChosen(data)) return;
    this.depth = data;
    this.isChanged = true;
  }

  takeTrades(data) {
    if (!this.isChosen(data)) return;
    this.trades = data;
    this.passedOver += data.passed_over;
    this.last = [...data.trades.reverse(), ...this.last].slice(0, TRADES);
    this.isChanged = true;
  }

  /** The conditions that are no matter of course. */
  condition(data) {
    return data ? data.flags.filter((flag) => flag !== "SIMULATED").map((flag) => flag.replaceAll("_", " ")).join(" ") : "";
  }

  draw() {
    if (document.hidden || this.card.hidden || !this.isChanged) return;
    this.isChanged = false;
    const { depth, trades } = this;
    this.card.classList.toggle("old", Boolean(this.condition(depth)));
    this.side(this.asks, depth?.asks ?? [], depth?.tick);
    this.side(this.bids, depth?.bids ?? [], depth?.tick);
    const [bid, ask] = [depth?.bids[0]?.[0], depth?.asks[0]?.[0]];
    const spread = bid && ask ? `spread ${price(ask - bid, depth.tick)}` : depth ? "" : "no depth yet";
    put(document.querySelector("#spread"), [spread, this.condition(depth)].filter(Boolean).join(" · "));
    const note = this.last.length ? "" : "no trade since you look";
    const passed = this.passedOver ? `${this.passedOver} trades passed over` : "";
    put(document.querySelector("#tape-state"), [note, passed, this.condition(trades)].filter(Boolean).join(" · "));
    this.tape.replaceChildren(
      ...this.last.map((trade) => {
        const row = element("tr");
        const at = new Date((trade.exchange_ns || trade.recv_ns) / 1e6);
        row.append(
          element("td", at.toISOString().slice(11, 19)),
          element("td", trade.side, trade.side === "buy" ? "up" : trade.side === "sell" ? "down" : ""),
          element("td", price(trade.price, trades.tick), "number"),
          element("td", this.size(trade.size), "number"),
        );
        return row;
      }),
    );
  }

  side(rows, levels, tick) {
    const most = Math.max(...levels.slice(0, LEVELS).map(([, size]) => size));
    rows.forEach(({ row, at, size }, index) => {
      const level = levels[index];
      put(at, level ? price(level[0], tick) : "");
      put(size, level ? this.size(level[1]) : "");
      row.style.setProperty("--share", level ? `${Math.round((100 * level[1]) / most)}%` : "0%");
    });
  }

  size(value) {
    return value === null ? "–" : value.toLocaleString("en", { maximumSignificantDigits: 6 });
  }
}
