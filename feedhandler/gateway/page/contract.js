// What there is of a derivative beside its prices, and how far it is from its spot pair.

import { element, percent, price, put, size, span } from "./text.js";

const ROWS = {
  mark: "Mark",
  index: "Index",
  basis: "Basis",
  funding: "Funding",
  due: "Due in",
  predicted: "Predicted",
  interest: "Open interest",
  age: "As of",
};

/** The spot pair that a symbol is about, BTC/USDT of BTC/USDT:USDT. */
const pairOf = (symbol) => symbol.split(":")[0];

const middle = (ticker) => (ticker?.bid && ticker.ask ? (ticker.bid + ticker.ask) / 2 : null);

function countdown(seconds) {
  const two = (value) => String(Math.floor(value)).padStart(2, "0");
  const left = Math.max(0, seconds);
  return `${Math.floor(left / 3600)}:${two((left % 3600) / 60)}:${two(left % 60)}`;
}

export class Contract {
  /** now() is the gateway's clock, in ms; liveTicker(exchange, symbol) a ticker that is of now, null if none is. */
  constructor(now, liveTicker) {
    this.now = now;
    this.liveTicker = liveTicker;
    this.cells = {};
    for (const [name, title] of Object.entries(ROWS)) {
      const [row, head] = [element("tr"), element("th", title)];
      head.scope = "row";
      this.cells[name] = element("td", "", "number");
      row.append(head, this.cells[name]);
      document.querySelector("#contract tbody").append(row);
    }
  }

  /** From the middle of the pair's quote to that of the contract's, in basis points of the former. */
  basis(data) {
    const [own, pair] = [data.symbol, pairOf(data.symbol)].map((symbol) => middle(this.liveTicker(data.exchange, symbol)));
    if (!own || !pair) return `– to ${pairOf(data.symbol)}`;
    const points = (own / pair - 1) * 10000;
    return `${points < 0 ? "−" : "+"}${Math.abs(points).toFixed(1)} bp to ${pairOf(data.symbol)}`;
  }

  /** How old a value may be that no channel has, and REST is asked for: from the feed's status. "": it has a channel. */
  polledAge(status, field) {
    const polled = status?.feed?.polled?.find((each) => each.fields.includes(field));
    if (!polled?.oldest_ns) return "";
    return ` (REST, up to ${span((this.now() - polled.oldest_ns / 1e6) / 1000)} old)`;
  }

  /** data: the gateway's newest, null while there is none; status: its exchange's, null where that is not known. */
  draw(data, status) {
    const texts = Object.fromEntries(Object.keys(ROWS).map((name) => [name, "–"]));
    if (data) {
      const every = data.funding_interval_h ? ` every ${data.funding_interval_h} h` : "";
      texts.mark = price(data.mark, data.tick);
      texts.index = price(data.index, data.tick);
      texts.basis = this.basis(data);
      texts.funding = `${percent(data.funding_rate, 4)}${every}`;
      if (data.next_funding_ns) texts.due = countdown((data.next_funding_ns / 1e6 - this.now()) / 1000);
      texts.predicted = percent(data.predicted_funding_rate, 4);
      if (data.open_interest !== null)
        texts.interest = `${size(data.open_interest)} ${data.symbol.split("/")[0]}${this.polledAge(status, "open_interest")}`;
      texts.age = `${span((this.now() - data.recv_ns / 1e6) / 1000)} ago`;
    }
    for (const [name, cell] of Object.entries(this.cells)) put(cell, texts[name]);
  }
}
