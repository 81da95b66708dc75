// The dashboard: one stream from the gateway, and who shows what of it.

import { Events } from "./events.js";
import { Exchanges } from "./exchanges.js";
import { Market } from "./market.js";
import { Operator, ask, token } from "./operator.js";
import { Plots } from "./plots.js";
import { Quality } from "./quality.js";
import { Stream } from "./stream.js";
import { put } from "./text.js";
import { Tickers } from "./tickers.js";

const find = (selector) => document.querySelector(selector);

let offset = 0; // the gateway's clock less ours, ms
const now = () => Date.now() + offset;
const news = (text) => put(find("#news"), text);

const tickers = new Tickers(now, (exchange, symbol) => exchanges.isWanted(exchange, symbol));
const operator = new Operator(now, () => stream.authorize());
const steer = (exchange, what) => operator.steer(exchange, what);
const exchanges = new Exchanges(now, steer, news, (exchange) => tickers.newest.get(exchange));
const plots = new Plots();
const market = new Market((message) => stream.send(message), now, (exchange, symbol) => tickers.live(exchange, symbol));
const events = new Events();
const quality = new Quality();
let merger = null;
let retryAt = 0;
let isLost = false;
let isAsked = false; // for the token

function takePulse(data) {
  offset = data.now_ns / 1e6 - Date.now();
  merger = data.merger;
  exchanges.isKnown = merger !== null;
  document.body.classList.toggle("silent", !merger);
  exchanges.draw();
  events.take(data.events);
  put(find("#rate"), merger ? `${Math.round(merger.records_per_s).toLocaleString("en")} records/s, ${merger.topics} topics` : "");
}

function takeExchange(row) {
  exchanges.take(row);
  plots.take(row, Math.floor(now() / 1000));
  market.replace([...exchanges.rows.values()]);
}

const stream = new Stream(
  {
    snapshot(data) {
      events.count = -1;
      tickers.replace(data.tickers);
      exchanges.replace(data.exchanges);
      takePulse(data);
      market.connected([...exchanges.rows.values()]);
      operator.connected();
      quality.begin();
      operator.setExchanges(exchanges.names());
      ask("GET", "/v1/latency").then((history) => plots.replace(history), () => plots.make());
    },
    market_update: (data) => tickers.take(data),
    depth_update: (data) => market.takeDepth(data),
    trade_update: (data) => market.takeTrades(data),
    contract_update: (data) => market.takeContract(data),
    liquidation_update: (data) => market.takeLiquidations(data),
    status_update: takeExchange,
    heartbeat: takePulse,
    authorized: () => operator.authorized(),
    balance_update: (data) => operator.takeAccount(data),
    error: (data) => operator.refused(data.detail),
  },
  (state, wait) => {
    retryAt = performance.now() + wait;
    if (state === "lost" && !isLost) news("the page has lost its connection to the gateway");
    if (state === "live" && isLost) news("the page is connected again");
    if (state !== "connecting") isLost = state === "lost";
    isAsked = state === "token";
    document.body.classList.toggle("lost", isLost);
    const link = find("#link");
    link.dataset.state = state;
    put(link, { live: "connected to the gateway", lost: "connection lost", connecting: "connecting …", token: "token wanted" }[state]);
    banners();
  },
  token,
);

function show(selector, text) {
  const banner = find(selector);
  banner.hidden = !text;
  put(banner, text);
}

function banners() {
  const left = Math.max(0, (retryAt - performance.now()) / 1000);
  const lost = "This page has lost its connection to the gateway: what it shows is old.";
  const asked = "This gateway tells nothing without its token: enter it below.";
  show("#lost", isAsked ? asked : isLost ? lost : "");
  show("#again", isLost && !isAsked ? (left > 0 ? `The next attempt is in ${left.toFixed(0)} s.` : "Trying now.") : "");
  const rows = [...exchanges.rows.values()];
  const isBad = (row) => row.connect && exchanges.status(row) && !["live", "idle"].includes(row.status.state);
  const bad = rows.filter(isBad);
  const texts = bad.map((row) => `${row.exchange} is ${row.status.state.toUpperCase()}: ${row.text}`);
  if (!isLost && !merger && rows.length) texts.unshift("The merger is silent: nothing is known of any exchange, and all data are DOWN");
  const stale = tickers.staleCount();
  if (stale && !bad.length) texts.push(`${stale} ${stale > 1 ? "symbols are" : "symbol is"} STALE: filter for it`);
  show("#trouble", texts.join(" — "));
  const simulated = rows.filter((row) => row.is_simulated).map((row) => row.exchange);
  const isAll = simulated.length === rows.length;
  show("#simulated", simulated.length ? `SIMULATED${isAll ? "" : `: ${simulated.join(", ")}`}` : "");
  put(find("#clock"), new Date(now()).toISOString().slice(11, 19) + " UTC");
}
setInterval(banners, 500);
