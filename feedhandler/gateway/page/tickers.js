// The table of tickers: what has changed is drawn once a turn, and so many rows at most.

import { element, percent, price, put, span } from "./text.js";

const ROWS_MAX = 300;
const SPARK_SECONDS = 120;
const DRAW_MS = 200;
const BADGES = { DOWN: "bad", STALE: "warn", BAD_EXCHANGE_TIME: "warn", SIMULATED: "plain" };

export class Tickers {
  constructor(now) {
    this.now = now; // the gateway's clock, in ms
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
    for (const topic of this.pasts.keys()) if (!this.tickers.has(topic)) this.pasts.delete(topic);
    this.changed = new Set(this.tickers.keys());
    this.isOrderOld = true;
  }

  take(ticker) {
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

  arrange() {
    this.isOrderOld = false;
    const words = this.filter.value.toUpperCase().split(/[\s,]+/).filter(Boolean);
    const [key, sign] = this.order;
    const found = [...this.tickers.values()].filter((t) => {
      const text = `${t.symbol} ${t.exchange} ${t.flags.join(" ")}`.toUpperCase();
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
    const cells = { row, exchange: element("td", ticker.exchange) };
    for (const name of ["last", "bid", "ask", "spread", "change", "age"]) cells[name] = element("td", "", "number");
    cells.spark = element("td");
    cells.flags = element("td");
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
    }
  }

  update(topic) {
    const [cells, ticker] = [this.rows.get(topic), this.tickers.get(topic)];
    if (!cells || !ticker) return;
    put(cells.last, price(ticker.last));
    put(cells.bid, price(ticker.bid));
    put(cells.ask, price(ticker.ask));
    const spread = this.value(ticker, "spread");
    put(cells.spread, spread === null ? "–" : `${(spread * 10000).toFixed(2)} bp`);
    const change = this.value(ticker, "change");
    put(cells.change, percent(change));
    cells.change.className = `number ${change === null ? "" : change < 0 ? "down" : "up"}`;
    const flags = ticker.flags.join(" ");
    if (cells.flags.dataset.flags !== flags) {
      cells.flags.dataset.flags = flags;
      const badges = ticker.flags.map((flag) => element("span", flag.replaceAll("_", " "), `badge ${BADGES[flag] ?? "plain"}`));
      const isLive = !ticker.flags.includes("DOWN") && !ticker.flags.includes("STALE");
      if (isLive) badges.unshift(element("span", "LIVE", "badge good"));
      cells.flags.replaceChildren(...badges);
      cells.row.classList.toggle("old", !isLive);
    }
    this.spark(cells.spark, this.pasts.get(topic) ?? []);
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
