// Trades and depth of one symbol, and, of a derivative, what else there is; the user chooses it of those that have
// some. Nothing is asked for while the card is hidden.

import { Contract } from "./contract.js";
import { element, price, put, size } from "./text.js";

const KINDS = { depth: "#ladder", trade: "#tape", contract: "#contract", liquidation: "#liquidated" }; // and where
const LEVELS = 8; // of a side
const TRADES = 12;
const TRADES_OF_A_CONTRACT = 6; // beside which there is more to be seen
const LIQUIDATIONS = 5;
const DRAW_MS = 200;
const KEY = "feedhandler-market"; // in sessionStorage, so that a reload keeps it

export class Market {
  /** send(message) goes to the gateway; the others are a contract's. */
  constructor(send, now, liveTicker) {
    this.send = send;
    this.contractTable = new Contract(now, liveTicker);
    this.statuses = new Map(); // exchange → its status, null where that is not known
    this.topics = new Map(); // "exchange symbol" → kinds that are wanted of it
    this.card = document.querySelector("#market");
    this.select = document.querySelector("#watched");
    this.asks = this.levels("#asks").reverse(); // the best is next to the bids
    this.bids = this.levels("#bids");
    this.tape = document.querySelector("#trades tbody");
    this.ended = document.querySelector("#liquidations tbody");
    this.clear();
    this.select.addEventListener("input", () => {
      sessionStorage.setItem(KEY, this.select.value);
      this.ask();
    });
    setInterval(() => this.draw(), DRAW_MS);
  }

  levels(selector) {
    return Array.from({ length: LEVELS }, () => {
      const [row, amount, at] = [element("tr"), element("td", "", "number"), element("td", "", "number")];
      row.append(at, amount);
      document.querySelector(selector).append(row);
      return { row, at, amount };
    });
  }

  clear() {
    this.depth = this.trades = this.contract = this.liquidations = null;
    this.last = [];
    this.lastLiquidations = [];
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
    this.statuses = new Map(rows.map((row) => [row.exchange, row.status]));
    this.isChanged = true;
    const topics = new Map();
    for (const row of rows) {
      const feed = row.status?.feed;
      // Of a feed that is gone, and of all while the merger is silent, nothing is known: what there was is DOWN.
      if (!feed) this.topics.forEach((kinds, topic) => topic.startsWith(`${row.exchange} `) && topics.set(topic, kinds));
      for (const [name, kinds] of Object.entries(feed?.wanted ?? {})) {
        const found = Object.keys(KINDS).filter((kind) => kinds.includes(kind));
        if (found.length) topics.set(`${row.exchange} ${feed.renamed[name] ?? name}`, found);
      }
    }
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
    for (const [kind, selector] of Object.entries(KINDS)) {
      document.querySelector(selector).hidden = !this.kinds.includes(kind);
      const symbols = this.kinds.includes(kind) ? [symbol] : [];
      if (symbols.length || isNew) this.send({ type: "subscribe", kind, symbols, exchanges: symbols.length ? [exchange] : null });
    }
    this.asked = wanted;
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

  takeContract(data) {
    if (!this.isChosen(data)) return;
    this.isChanged ||= this.condition(data) !== this.condition(this.contract);
    this.contract = data;
  }

  takeLiquidations(data) {
    if (!this.isChosen(data)) return;
    this.liquidations = data;
    this.lastLiquidations = [...data.liquidations.reverse(), ...this.lastLiquidations].slice(0, LIQUIDATIONS);
    this.isChanged = true;
  }

  /** The conditions that are no matter of course. */
  condition(data) {
    return data ? data.flags.filter((flag) => flag !== "SIMULATED").map((flag) => flag.replaceAll("_", " ")).join(" ") : "";
  }

  draw() {
    if (document.hidden || this.card.hidden) return;
    if (this.kinds.includes("contract")) this.drawContract();
    if (!this.isChanged) return;
    this.isChanged = false;
    this.drawLiquidations();
    const { depth, trades } = this;
    this.card.classList.toggle("old", Boolean(this.condition(depth) || this.condition(this.contract)));
    this.side(this.asks, depth?.asks ?? [], depth?.tick);
    this.side(this.bids, depth?.bids ?? [], depth?.tick);
    const [bid, ask] = [depth?.bids[0]?.[0], depth?.asks[0]?.[0]];
    const spread = bid && ask ? `spread ${price(ask - bid, depth.tick)}` : depth ? "" : "no depth yet";
    put(document.querySelector("#spread"), [spread, this.condition(depth)].filter(Boolean).join(" · "));
    const note = this.last.length ? "" : "no trade since you look";
    const passed = this.passedOver ? `${this.passedOver} trades passed over` : "";
    put(document.querySelector("#tape-state"), [note, passed, this.condition(trades)].filter(Boolean).join(" · "));
    const tradesMax = this.kinds.includes("contract") ? TRADES_OF_A_CONTRACT : TRADES;
    this.tape.replaceChildren(...this.last.slice(0, tradesMax).map((trade) => this.row(trade, trades.tick)));
  }

  /** A trade, or a liquidation. */
  row(trade, tick) {
    const row = element("tr");
    const at = new Date((trade.exchange_ns || trade.recv_ns) / 1e6);
    row.append(
      element("td", at.toISOString().slice(11, 19)),
      element("td", trade.side, trade.side === "buy" ? "up" : trade.side === "sell" ? "down" : ""),
      element("td", price(trade.price, tick), "number"),
      element("td", size(trade.size), "number"),
    );
    return row;
  }

  /** What is due, and how old it is, changes without news. */
  drawContract() {
    this.contractTable.draw(this.contract, this.statuses.get(this.select.value.split(" ")[0]));
    const note = this.contract ? "" : "nothing of the contract yet";
    put(document.querySelector("#contract-state"), note || this.condition(this.contract));
  }

  drawLiquidations() {
    const { liquidations } = this;
    this.ended.replaceChildren(...this.lastLiquidations.map((each) => this.row(each, liquidations.tick)));
    const note = this.lastLiquidations.length ? "" : "no liquidation yet";
    const leftOut = this.statuses.get(this.select.value.split(" ")[0])?.feed?.left_out?.liquidation;
    const missing = leftOut ? `the exchange leaves out ${leftOut}` : "";
    put(document.querySelector("#liquidations-state"), [note, missing, this.condition(liquidations)].filter(Boolean).join(" · "));
  }

  side(rows, levels, tick) {
    const most = Math.max(...levels.slice(0, LEVELS).map(([, size]) => size));
    rows.forEach(({ row, at, amount }, index) => {
      const level = levels[index];
      put(at, level ? price(level[0], tick) : "");
      put(amount, level ? size(level[1]) : "");
      row.style.setProperty("--share", level ? `${Math.round((100 * level[1]) / most)}%` : "0%");
    });
  }
}
