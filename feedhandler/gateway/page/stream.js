// The WebSocket: connects, notices that it is lost, and connects again, later each time, with jitter.

const SILENCE_MS = 3000; // the gateway says something every second
const RETRY_MS = [500, 10000];

export class Stream {
  /** handlers: by type of message; onState("connecting" | "live" | "lost", ms until the next attempt) */
  constructor(handlers, onState, token) {
    this.handlers = handlers;
    this.onState = onState;
    this.token = token;
    this.failures = 0;
    this.heard = 0;
    this.connect();
    setInterval(() => this.look(), 500);
  }

  connect() {
    this.onState("connecting", 0);
    this.heard = performance.now();
    const scheme = location.protocol === "https:" ? "wss" : "ws";
    const socket = (this.socket = new WebSocket(`${scheme}://${location.host}/ws`));
    socket.onopen = () => this.authorize();
    socket.onmessage = (event) => {
      if (socket === this.socket) this.take(JSON.parse(event.data));
    };
    socket.onclose = () => {
      if (socket === this.socket) this.lose();
    };
  }

  authorize() {
    if (this.token() && this.socket.readyState === WebSocket.OPEN)
      this.socket.send(JSON.stringify({ type: "auth", token: this.token() }));
  }

  take(message) {
    this.heard = performance.now();
    if (message.type === "snapshot") {
      this.failures = 0;
      this.onState("live", 0);
    }
    this.handlers[message.type]?.(message.data);
  }

  look() {
    if (this.socket && performance.now() - this.heard > SILENCE_MS) {
      const silent = this.socket;
      this.lose();
      silent.close();
    }
  }

  lose() {
    this.socket = null;
    const ceiling = Math.min(RETRY_MS[1], RETRY_MS[0] * 2 ** this.failures++);
    const wait = ceiling * (0.5 + Math.random() / 2);
    this.onState("lost", wait);
    setTimeout(() => this.connect(), wait);
  }
}
