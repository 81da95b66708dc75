// Numbers and times in words. Nothing from the wire becomes HTML: elements get text, never markup.

export function price(value) {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  const digits = size >= 1000 ? 2 : size >= 1 ? 4 : size >= 0.01 ? 6 : 8;
  return value.toLocaleString("en", { maximumFractionDigits: digits, minimumFractionDigits: Math.min(2, digits) });
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
