// Numbers and times in words. Nothing from the wire becomes HTML: elements get text, never markup.

const FIGURES = 6; // of a price whose tick is not known

/** A price with the decimals of its tick, as text such as "0.01"; all prices of a symbol then have as many. */
export function price(value, tick) {
  if (value === null || value === undefined) return "–";
  const guess = value ? Math.max(2, FIGURES - 1 - Math.floor(Math.log10(Math.abs(value)))) : 2;
  const digits = Math.min(20, tick ? (tick.split(".")[1] ?? "").length : guess);
  return value.toLocaleString("en", { maximumFractionDigits: digits, minimumFractionDigits: digits });
}

export function percent(value, digits = 2) {
  return value === null ? "–" : `${value >= 0 ? "+" : "−"}${Math.abs(value * 100).toFixed(digits)} %`;
}

export function span(seconds) {
  if (!Number.isFinite(seconds)) return "–";
  if (seconds < 0) return "0.0 s";
  if (seconds < 60) return `${seconds.toFixed(1)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 86400) return `${(seconds / 3600).toFixed(1)} h`;
  return `${(seconds / 86400).toFixed(1)} d`;
}

export function micros(value) {
  if (value === null || value === undefined) return "–";
  return value < 1000 ? `${value.toFixed(0)} µs` : `${(value / 1000).toFixed(2)} ms`;
}

/** An amount, of which six digits count. */
export function size(value) {
  return value === null ? "–" : value.toLocaleString("en", { maximumSignificantDigits: 6 });
}

export function element(name, text = "", classes = "") {
  const made = document.createElement(name);
  made.textContent = text;
  if (classes) made.className = classes;
  return made;
}

/** Change what is shown only where it differs: a screen reader, and the browser, have less to do. */
export function put(node, text) {
  if (node.textContent !== text) node.textContent = text;
}
