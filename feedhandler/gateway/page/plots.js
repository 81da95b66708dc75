// Latency and rates of the last ten minutes, drawn by uPlot: from the gateway's history, then as statuses come.

import { micros } from "./text.js";

const SECONDS = 600;
const HEIGHT = 190;
const STAGES = ["feed p50", "feed p99", "hop p50", "hop p99", "total p50", "total p99"];
// Of each stage the median is drawn whole and the 99th percentile in dashes; of each exchange the rate, likewise apart.
const DASHES = [undefined, [7, 4], [2, 3]];
const BORDERS = ["solid", "dashed", "dotted"];
const COLOURS = { light: ["#8a5300", "#6b4fa0", "#0b5cad"], dark: ["#f3c163", "#c4a7ff", "#77b7f5"] };

export class Plots {
  constructor() {
    this.rows = new Map(); // exchange → rows of the history
    this.select = document.querySelector("#plotted");
    this.select.addEventListener("change", () => this.make());
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.make());
    addEventListener("resize", () => this.resize());
    setInterval(() => this.draw(), 1000);
  }

  replace(history) {
    for (const [exchange, rows] of Object.entries(history.exchanges)) this.rows.set(exchange, rows);
    this.make();
  }

  take(row, seconds) {
    const s = row.status;
    if (!s) return;
    const rows = this.rows.get(row.exchange) ?? [];
    if (!this.rows.has(row.exchange)) this.rows.set(row.exchange, rows);
    if (rows.length && rows.at(-1)[0] >= seconds) return;
    rows.push([seconds, s.feed_p50_us, s.feed_p99_us, s.hop_p50_us, s.hop_p99_us, s.latency_p50_us, s.latency_p99_us, s.records_per_s]);
    while (rows.length > SECONDS) rows.shift();
    if (this.select.length < this.rows.size) this.make();
  }

  make() {
    const names = [...this.rows.keys()].sort();
    if (!names.length || typeof uPlot === "undefined") return;
    const chosen = names.includes(this.select.value) ? this.select.value : names[0];
    this.select.replaceChildren(...names.map((name) => new Option(name, name, false, name === chosen)));
    const style = getComputedStyle(document.documentElement);
    const [ink, line] = [style.getPropertyValue("--quiet"), style.getPropertyValue("--line")];
    const colours = COLOURS[matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light"];
    const axis = { stroke: ink, grid: { stroke: line, width: 1 }, ticks: { stroke: line } };
    const time = { ...axis, values: (_, ticks) => ticks.map((t) => new Date(t * 1000).toLocaleTimeString("en-GB").slice(0, 8)), space: 80 };
    const width = (id) => Math.max(240, document.querySelector(id).clientWidth);
    const at = { label: "at", value: (_, t) => (t === null ? "–" : new Date(t * 1000).toLocaleTimeString("en-GB")) };
    const legend = (dash) => ({ markers: { width: () => 2, fill: () => "transparent", dash: (_, i) => BORDERS[dash(i - 1)] } });
    this.latency?.destroy();
    this.rates?.destroy();
    this.latency = new uPlot(
      {
        width: width("#latency"), height: HEIGHT, cursor: { drag: { x: false, y: false } }, legend: legend((i) => i % 2),
        scales: { x: { time: true }, y: { distr: 3 } },
        axes: [time, { ...axis, size: 62, values: (_, ticks) => ticks.map((t) => (t === null ? "" : t >= 1e6 ? `${t / 1e6} s` : t >= 1000 ? `${t / 1000} ms` : `${t} µs`)) }],
        series: [at, ...STAGES.map((label, i) => ({
          label, stroke: colours[i >> 1], width: 1.5, dash: DASHES[i % 2], points: { show: false },
          value: (_, v) => micros(v),
        }))],
      },
      [[], ...STAGES.map(() => [])], document.querySelector("#latency"),
    );
    this.rates = new uPlot(
      {
        width: width("#rates"), height: HEIGHT, cursor: { drag: { x: false, y: false } }, legend: legend((i) => i % 3),
        scales: { x: { time: true }, y: { range: (_, low, high) => [0, Math.max(1, high * 1.1)] } },
        axes: [time, { ...axis, size: 62 }],
        series: [at, ...names.map((label, i) => ({
          label, stroke: colours[i % 3], width: 1.5, dash: DASHES[i % 3], points: { show: false },
          value: (_, v) => (v === null || v === undefined ? "–" : `${v.toFixed(0)}/s`),
        }))],
      },
      [[], ...names.map(() => [])], document.querySelector("#rates"),
    );
    this.draw();
  }

  draw() {
    if (!this.latency || document.hidden) return;
    const rows = this.rows.get(this.select.value) ?? [];
    const column = (i) => rows.map((row) => (row[i] > 0 ? row[i] : null)); // a logarithm has no 0
    this.latency.setData([rows.map((row) => row[0]), ...STAGES.map((_, i) => column(i + 1))]);
    const names = [...this.rows.keys()].sort();
    const seconds = [...new Set(names.flatMap((name) => this.rows.get(name).map((row) => row[0])))].sort((a, b) => a - b);
    const rates = names.map((name) => {
      const known = new Map(this.rows.get(name).map((row) => [row[0], row[7]]));
      return seconds.map((second) => known.get(second) ?? null);
    });
    this.rates.setData([seconds, ...rates]);
    // Who points at nothing reads the newest values.
    for (const plot of [this.latency, this.rates]) if (plot.cursor.left < 0) plot.setLegend({ idx: plot.data[0].length - 1 });
  }

  resize() {
    for (const [plot, id] of [[this.latency, "#latency"], [this.rates, "#rates"]])
      plot?.setSize({ width: Math.max(240, document.querySelector(id).clientWidth), height: HEIGHT });
  }
}
