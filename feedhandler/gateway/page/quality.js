// What was wrong with data in the last day, and whether everything is recorded: asked for now and then.

import { ask } from "./operator.js";
import { element, put, span } from "./text.js";

const EVERY_MS = 15000;
const SYMBOLS_MAX = 12; // the worst

const find = (selector) => document.querySelector(selector);
const number = (value) => value.toLocaleString("en");

function cells(row, texts) {
  row.replaceChildren(
    ...texts.map(([text, isBad], place) => {
      const cell = element(place ? "td" : "th", text, `${place ? "number" : ""}${isBad ? " is-bad" : ""}`);
      if (!place) cell.scope = "row";
      return cell;
    }),
  );
  return row;
}

const line = (texts) => cells(document.createElement("tr"), texts);
const sum = (rows, of) => rows.reduce((total, row) => total + of(row), 0);

export class Quality {
  constructor() {
    this.before = null; // the recorder's counts as they were, for what it writes a second
    this.timer = null;
    find("#watched").addEventListener("input", () => this.look());
  }

  /** The page is connected: ask from now on. */
  begin() {
    clearInterval(this.timer);
    this.timer = setInterval(() => this.look(), EVERY_MS);
    this.look();
  }

  async look() {
    try {
      this.draw(await ask("GET", "/v1/quality"));
      await this.lookAtHours(find("#watched").value);
      this.drawRecorder((await ask("GET", "/v1/status")).recorder, Date.now());
    } catch {
      // the next look asks again
    }
  }

  draw(table) {
    const names = [...new Set(table.exchanges.map((row) => row.exchange))].sort();
    const lines = names.map((name) => {
      const hours = table.exchanges.filter((row) => row.exchange === name);
      const symbols = table.symbols.filter((row) => row.exchange === name);
      const seconds = (...states) => sum(hours, (row) => states.reduce((total, state) => total + (row.seconds[state] ?? 0), 0));
      const all = sum(hours, (row) => Object.values(row.seconds).reduce((a, b) => a + b, 0));
      const live = seconds("live", "idle");
      const lost = sum(hours, (row) => row.lost_trades);
      const some = sum(hours, (row) => row.some_trades_lost);
      const invalid = sum(symbols, (row) => row.invalid_s);
      return line([
        [name],
        [all ? `${((100 * live) / all).toFixed(2)} %` : "–", all > 0 && live < all * 0.999],
        [span(seconds("stale")), seconds("stale") > 0],
        [span(all - live - seconds("stale", "unknown")), all - live - seconds("stale", "unknown") > 1],
        [number(sum(hours, (row) => row.reconnects))],
        [some ? `${number(lost)} +` : number(lost), lost + some > 0],
        [number(sum(hours, (row) => row.recovered_trades))],
        [span(invalid), invalid > 0],
        [number(sum(hours, (row) => row.duplicates))],
      ]);
    });
    find("#quality tbody").replaceChildren(...lines);
    put(find("#quality-since"), `Since ${new Date(table.since_ns / 1e6).toISOString().slice(0, 16).replace("T", " ")} UTC, 24 hours at the most.`);
    this.drawSymbols(table.symbols);
  }

  /** watched: an exchange and a symbol, as the page has them chosen; "" if there is none. */
  async lookAtHours(watched) {
    const [exchange, symbol] = watched.split(" ");
    const query = new URLSearchParams({ exchange, symbol });
    const rows = symbol ? (await ask("GET", `/v1/quality?${query}`)).symbols : [];
    find("#hours").hidden = rows.length === 0;
    put(find("#hours caption"), `${watched}, hour by hour`);
    find("#hours tbody").replaceChildren(...rows.map((row) => {
      const lost = row.lost_trades < 0 ? "some" : number(row.lost_trades);
      const away = row.stale_s + row.down_s;
      const line = document.createElement("tr");
      const hour = element("th", new Date(row.hour_ns / 1e6).toISOString().slice(11, 16));
      hour.scope = "row";
      line.replaceChildren(
        hour,
        element("td", row.kind),
        element("td", number(row.records), "number"),
        element("td", lost, `number${row.lost_trades ? " is-bad" : ""}`),
        element("td", span(away), `number${away ? " is-bad" : ""}`),
        element("td", span(row.invalid_s), `number${row.invalid_s ? " is-bad" : ""}`),
        element("td", row.unproven),
      );
      return line;
    }));
  }

  /** The symbols with which most was wrong, over all hours. */
  drawSymbols(rows) {
    const found = new Map();
    for (const row of rows) {
      const key = `${row.exchange} ${row.symbol} ${row.kind}`;
      const all = found.get(key) ?? { stale: 0, down: 0, invalid: 0, lost: 0 };
      all.stale += row.stale_s;
      all.down += row.down_s;
      all.invalid += row.invalid_s;
      all.lost += Math.abs(row.lost_trades);
      found.set(key, all);
    }
    const badness = (all) => all.lost * 60 + all.stale + all.down + all.invalid;
    const worst = [...found].sort((a, b) => badness(b[1]) - badness(a[1])).slice(0, SYMBOLS_MAX);
    find("#worst").hidden = worst.length === 0;
    find("#worst tbody").replaceChildren(
      ...worst.map(([key, all]) => line([[key], [span(all.stale)], [span(all.down)], [span(all.invalid)], [number(all.lost), all.lost > 0]])),
    );
  }

  /** status: null where no recorder is configured, or none has ever run. */
  drawRecorder(status, nowMs) {
    find("#recording").hidden = !status;
    if (!status) return;
    const feeds = Object.entries(status.feeds);
    const size = sum(feeds, ([, feed]) => feed.items_size);
    const stored = sum(feeds, ([, feed]) => feed.stored_size);
    const before = this.before;
    this.before = { size, stored, at: status.as_of_ns / 1e9, pid: status.pid };
    const isOld = Math.abs(nowMs - status.as_of_ns / 1e6) > 15000;
    const state = find("#recording-state");
    put(state, isOld ? "The recorder has not said for a while what it does." : status.stopped ? `Nothing is recorded: ${status.stopped}` : "Recording.");
    state.classList.toggle("is-bad", isOld || status.stopped !== "");
    const seconds = before && before.pid === status.pid ? this.before.at - before.at : 0;
    const rate = (now, then) => (seconds > 0 ? `${((now - then) / seconds / 1e6).toFixed(2)} MB/s` : "–");
    const gigabytes = (bytes) => (bytes < 1e9 ? `${(bytes / 1e6).toFixed(1)} MB` : `${(bytes / 1e9).toFixed(1)} GB`);
    const isShort = status.free_size < 2 * status.min_free_size;
    const gaps = sum(feeds, ([, feed]) => feed.gaps);
    const lost = sum(feeds, ([, feed]) => feed.lost);
    find("#recording tbody").replaceChildren(
      line([["Traffic"], [rate(size, before?.size ?? 0)]]),
      line([["To the disk"], [rate(stored, before?.stored ?? 0)]]),
      line([["Frames"], [number(sum(feeds, ([, feed]) => feed.received))]]),
      line([["Recordings"], [gigabytes(status.size)]]),
      line([["Disk left"], [gigabytes(status.free_size), isShort]]),
      line([["Gaps"], [lost ? `${number(gaps)}, ${number(lost)} frames or answers` : number(gaps), gaps > 0]]),
    );
  }
}
