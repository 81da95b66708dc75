// The table of tickers: what has changed is drawn once a turn, and so many rows at most.

import { element, percent, price, put, span } from "./text.js";

const ROWS_MAX = 300;
const SPARK_SECONDS = 120;
const DRAW_MS = 200;
const BADGES = { LIVE: "good", DOWN: "bad", STALE: "warn", "BAD EXCHANGE TIME": "warn" };

export class Tickers {
  /** isWanted(exchange, symbol): whether somebody wants it; null where that is not known. */
  constructor(now, isWanted) {
    this.now = now; // the gateway's clock, in ms
    this.isWanted = isWanted;
    this.newest = new Map(); // exchange → when its newest data were received, in ns
    this.tickers = new Map(); // topic → ticker
    this.pasts = new Map(); // topic → [[second, last], …]
    this.rows = new Map(); // topic → its cells
    this.changed = new Set();
    this.order = ["symbol", 1];
    this.isOrderOld = true;
    this.body = document.querySelector("#rows tbody");
    this.filter = document.querySelector("#filter");
    this.filter.addEventListener("input", () => (this.isOrderOld = true));
    for (const button of document.querySelectorAll("[data-sort]"))
      button.addEventListener("click", () => this.sortBy(button.dataset.sort));
    this.markOrder();
    setInterval(() => this.draw(), DRAW_MS);
    setInterval(() => (this.isOrderOld = true), 2000);
  }

  replace(tickers) {
    this.tickers = new Map(tickers.map((ticker) => [ticker.topic, ticker]));
    this.newest.clear();
    for (const ticker of tickers) this.note(ticker);
    for (const topic of this.pasts.keys()) if (!this.tickers.has(topic)) this.pasts.delete(topic);
    this.changed = new Set(this.tickers.keys());
    this.isOrderOld = true;
  }

  note(ticker) {
    if (ticker.recv_ns > (this.newest.get(ticker.exchange) ?? 0)) this.newest.set(ticker.exchange, ticker.recv_ns);
  }

  take(ticker) {
    this.note(ticker);
    if (!this.tickers.has(ticker.topic)) this.isOrderOld = true;
    this.tickers.set(ticker.topic, ticker);
    this.changed.add(ticker.topic);
    if (ticker.last === null) return;
    const past = this.pasts.get(ticker.topic) ?? [];
    this.pasts.set(ticker.topic, past);
    const second = Math.floor(this.now() / 1000);
    if (past.at(-1)?.[0] === second) past.at(-1)[1] = ticker.last;
    else past.push([second, ticker.last]);
    while (past.length && past[0][0] < second - SPARK_SECONDS) past.shift();
  }

  sortBy(key) {
    this.order = [key, this.order[0] === key ? -this.order[1] : 1];
    this.isOrderOld = true;
    this.markOrder();
  }

  markOrder() {
    for (const button of document.querySelectorAll("[data-sort]")) {
      const isIt = button.dataset.sort === this.order[0];
      button.parentElement.ariaSort = isIt ? (this.order[1] > 0 ? "ascending" : "descending") : "none";
    }
  }

  value(ticker, key) {
    if (key === "spread") return ticker.bid && ticker.ask ? (ticker.ask - ticker.bid) / ticker.bid : null;
    if (key === "change") return ticker.last && ticker.open_24h ? ticker.last / ticker.open_24h - 1 : null;
    if (key === "age") return ticker.recv_ns ? -ticker.recv_ns : null;
    return ticker[key];
  }

  /** The conditions of a ticker, as they are shown. That of a symbol that nobody wants any more is no fault. */
  conditions(ticker) {
    const isDown = ticker.flags.includes("DOWN");
    if (isDown && this.isWanted(ticker.exchange, ticker.symbol) === false) return ["NOT SUBSCRIBED"];
    const left = isDown ? ["SIMULATED", "STALE"] : ["SIMULATED"]; // said above; what is DOWN is old, too
    const flags = ticker.flags.filter((flag) => !left.includes(flag)).map((flag) => flag.replaceAll("_", " "));
    return isDown || flags.includes("STALE") ? flags : ["LIVE", ...flags];
  }

  /** The newest ticker of a symbol, null if it is not of now. */
  live(exchange, symbol) {
    const ticker = this.tickers.get(`ticker.${exchange}.${symbol}`);
    return ticker && this.conditions(ticker).includes("LIVE") ? ticker : null;
  }

  staleCount() {
    return [...this.tickers.values()].filter((t) => this.conditions(t).includes("STALE")).length;
  }

  arrange() {
    this.isOrderOld = false;
    const words = this.filter.value.toUpperCase().split(/[\s,]+/).filter(Boolean);
    const [key, sign] = this.order;
    const found = [...this.tickers.values()].filter((t) => {
      const text = `${t.symbol} ${t.exchange} ${this.conditions(t).join(" ")} ${t.flags.join(" ")}`.toUpperCase();
      return words.every((word) => text.includes(word));
    });
    found.sort((a, b) => {
      const [x, y] = [this.value(a, key), this.value(b, key)];
      if (x === y) return a.topic < b.topic ? -1 : 1;
      if (x === null) return 1;
      if (y === null) return -1;
      return (x < y ? -1 : 1) * sign;
    });
    const shown = found.slice(0, ROWS_MAX);
    const total = this.tickers.size;
    const text = shown.length < found.length ? `${shown.length} of ${found.length} shown: filter for others` : `${found.length} of ${total}`;
    put(document.querySelector("#shown"), text);
    const wanted = new Set(shown.map((ticker) => ticker.topic));
    for (const [topic, cells] of this.rows)
      if (!wanted.has(topic)) {
        cells.row.remove();
        this.rows.delete(topic);
      }
    shown.forEach((ticker, index) => {
      let cells = this.rows.get(ticker.topic);
      if (!cells) {
        this.rows.set(ticker.topic, (cells = this.make(ticker)));
        this.changed.add(ticker.topic);
      }
      if (this.body.children[index] !== cells.row) this.body.insertBefore(cells.row, this.body.children[index] ?? null);
    });
  }

  make(ticker) {
    const row = element("tr");
    row.dataset.topic = ticker.topic;
    const symbol = element("th", ticker.symbol);
    symbol.scope = "row";
    const cells = { row, symbol, exchange: element("td", ticker.exchange, "wide") };
    for (const name of ["last", "bid", "ask"]) cells[name] = element("td", "", "number");
    for (const name of ["spread", "change", "age"]) cells[name] = element("td", "", "number wide");
    cells.spark = element("td", "", "wide");
    cells.flags = element("td", "", "wide");
    const { exchange, last, bid, ask, spread, change, spark, age, flags } = cells;
    row.append(symbol, exchange, last, bid, ask, spread, change, spark, age, flags);
    return cells;
  }

  draw() {
    if (document.hidden) return;
    if (this.isOrderOld) this.arrange();
    for (const topic of this.changed) this.update(topic);
    this.changed.clear();
    const now = this.now();
    for (const [topic, cells] of this.rows) {
      const ticker = this.tickers.get(topic);
      put(cells.age, ticker.recv_ns ? span((now - ticker.recv_ns / 1e6) / 1000) : "–");
      this.updateCondition(cells, ticker);
    }
  }

  update(topic) {
    const [cells, ticker] = [this.rows.get(topic), this.tickers.get(topic)];
    if (!cells || !ticker) return;
    for (const name of ["last", "bid", "ask"]) put(cells[name], price(ticker[name], ticker.tick));
    const spread = this.value(ticker, "spread");
    put(cells.spread, spread === null ? "–" : `${(spread * 10000).toFixed(2)} bp`);
    const change = this.value(ticker, "change");
    put(cells.change, percent(change));
    cells.change.className = `number wide ${change === null ? "" : change < 0 ? "down" : "up"}`;
    this.spark(cells.spark, this.pasts.get(topic) ?? []);
  }

  updateCondition(cells, ticker) {
    const conditions = this.conditions(ticker);
    const text = conditions.join(" ");
    if (cells.flags.dataset.text === text) return;
    cells.flags.dataset.text = text;
    cells.flags.replaceChildren(...conditions.map((each) => element("span", each, `badge ${BADGES[each] ?? "plain"}`)));
    // On a narrow screen: what the columns that are left out say.
    cells.symbol.dataset.sub = [ticker.exchange, ...conditions.filter((each) => each !== "LIVE")].join(" · ");
    cells.row.classList.toggle("old", conditions[0] !== "LIVE");
  }

  spark(cell, past) {
    if (past.length < 2) return;
    const name = "http://www.w3.org/2000/svg";
    let line = cell.querySelector("polyline");
    if (!line) {
      const svg = document.createElementNS(name, "svg");
      svg.setAttribute("class", "spark");
      svg.setAttribute("viewBox", "0 0 96 22");
      svg.setAttribute("preserveAspectRatio", "none");
      svg.setAttribute("aria-hidden", "true");
      svg.append((line = document.createElementNS(name, "polyline")));
      cell.append(svg);
    }
    const values = past.map(([, value]) => value);
    const [low, high] = [Math.min(...values), Math.max(...values)];
    const from = past.at(-1)[0] - SPARK_SECONDS;
    const points = past.map(([second, value]) => {
      const y = high === low ? 11 : 20 - (18 * (value - low)) / (high - low);
      return `${((96 * (second - from)) / SPARK_SECONDS).toFixed(1)},${y.toFixed(1)}`;
    });
    line.setAttribute("points", points.join(" "));
  }
}
