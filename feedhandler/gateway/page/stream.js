// The WebSocket: connects, notices that it is lost, and connects again, later each time, with jitter.

const SILENCE_MS = 3000; // the gateway says something every second
const RETRY_MS = [500, 10000];
const POLICY = 1008; // with which the gateway closes on who does not keep its rules

export class Stream {
  /** handlers: by type of message; onState("connecting" | "live" | "lost" | "token", ms until the next attempt) */
  constructor(handlers, onState, token) {
    this.handlers = handlers;
    this.onState = onState;
    this.token = token;
    this.failures = 0;
    this.receivedMs = 0;
    this.connect();
    setInterval(() => this.look(), 500);
  }

  connect() {
    this.onState("connecting", 0);
    this.receivedMs = performance.now();
    this.hasReceived = false;
    const scheme = location.protocol === "https:" ? "wss" : "ws";
    const socket = (this.socket = new WebSocket(`${scheme}://${location.host}/ws`));
    socket.onopen = () => this.authorize();
    socket.onmessage = (event) => {
      if (socket === this.socket) this.take(JSON.parse(event.data));
    };
    socket.onclose = (event) => {
      if (socket !== this.socket) return;
      // Beyond its own machine the gateway says nothing before it was told the token.
      if (event.code === POLICY && !this.hasReceived) this.ask();
      else this.lose();
    };
  }

  /** There is another token: say it, on a new connection if need be. */
  authorize() {
    if (this.token() && this.socket?.readyState === WebSocket.OPEN)
      this.socket.send(JSON.stringify({ type: "auth", token: this.token() }));
    else if (this.isAsking) {
      this.isAsking = false;
      this.connect();
    }
  }

  send(message) {
    if (this.socket?.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify(message));
  }

  take(message) {
    this.receivedMs = performance.now();
    if (message.type !== "error") this.hasReceived = true;
    if (message.type === "snapshot") {
      this.failures = 0;
      this.onState("live", 0);
    }
    this.handlers[message.type]?.(message.data);
  }

  look() {
    if (!this.socket || performance.now() - this.receivedMs <= SILENCE_MS) return;
    const silent = this.socket;
    if (!this.hasReceived && silent.readyState === WebSocket.OPEN && !this.token()) this.ask();
    else this.lose();
    silent.close();
  }

  ask() {
    this.socket = null;
    this.isAsking = true;
    this.onState("token", 0);
  }

  lose() {
    this.socket = null;
    const ceiling = Math.min(RETRY_MS[1], RETRY_MS[0] * 2 ** this.failures++);
    const wait = ceiling * (0.5 + Math.random() / 2);
    this.onState("lost", wait);
    setTimeout(() => this.connect(), wait);
  }
}
