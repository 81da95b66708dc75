// Latency and rates of the last ten minutes, drawn by uPlot: from the gateway's history, then as statuses come.

const SECONDS = 600;
const HEIGHT = 190;
const STAGES = ["feed p50", "feed p99", "hop p50", "hop p99", "total p50", "total p99"];
const COLOURS = {
  light: ["#7aa6d6", "#7aa6d6", "#c58f2d", "#c58f2d", "#0b5cad", "#b3261e"],
  dark: ["#5584b5", "#5584b5", "#d9a441", "#d9a441", "#77b7f5", "#ff9a92"],
};

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
    const width = (id) => Math.max(280, document.querySelector(id).clientWidth);
    this.latency?.destroy();
    this.rates?.destroy();
    this.latency = new uPlot(
      {
        width: width("#latency"), height: HEIGHT, cursor: { drag: { x: false, y: false } },
        scales: { x: { time: true }, y: { distr: 3 } },
        axes: [time, { ...axis, size: 62, values: (_, ticks) => ticks.map((t) => (t === null ? "" : t >= 1000 ? `${t / 1000} ms` : `${t} µs`)) }],
        series: [{}, ...STAGES.map((label, i) => ({
          label, stroke: colours[i], width: i % 2 ? 1.8 : 1.1, dash: [[2, 3], [9, 4], undefined][i >> 1], points: { show: false },
          value: (_, v) => (v === null || v === undefined ? "–" : `${v.toFixed(0)} µs`),
        }))],
      },
      [[], ...STAGES.map(() => [])], document.querySelector("#latency"),
    );
    this.rates = new uPlot(
      {
        width: width("#rates"), height: HEIGHT, cursor: { drag: { x: false, y: false } },
        scales: { x: { time: true }, y: { range: (_, low, high) => [0, Math.max(1, high * 1.1)] } },
        axes: [time, { ...axis, size: 62 }],
        series: [{}, ...names.map((label, i) => ({
          label, stroke: colours[[4, 2, 5][i % 3]], width: 1.4, dash: [undefined, [9, 4], [2, 3]][i % 3], points: { show: false },
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
  }

  resize() {
    for (const [plot, id] of [[this.latency, "#latency"], [this.rates, "#rates"]])
      plot?.setSize({ width: Math.max(280, document.querySelector(id).clientWidth), height: HEIGHT });
  }
}
