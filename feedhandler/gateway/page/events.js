// What happened in the last hour: asked for again whenever the gateway says that there is more.

import { ask } from "./operator.js";
import { element } from "./text.js";

const SHOWN_MAX = 100;

export class Events {
  constructor() {
    this.count = -1; // as of which the list was asked for
    this.list = document.querySelector("#events");
  }

  /** The gateway has had so many; -1: another gateway, perhaps. */
  async take(count) {
    if (count === this.count) return;
    this.count = count;
    try {
      this.draw((await ask("GET", "/v1/events")).events);
    } catch {
      this.count = -1; // the next heartbeat asks again
    }
  }

  draw(events) {
    document.querySelector("#events-none").hidden = events.length > 0;
    this.list.replaceChildren(
      ...events.slice(0, SHOWN_MAX).map((event) => {
        const at = new Date(event.at_ns / 1e6);
        const time = element("time", at.toISOString().slice(11, 19));
        time.dateTime = at.toISOString();
        const item = element("li");
        item.append(time, element("span", `${event.exchange ? `${event.exchange}: ` : ""}${event.text}`, event.is_bad ? "is-bad" : ""));
        return item;
      }),
    );
  }
}
