// Compiled, never run: the types say what feedhandler.mjs has, and refuse what it has not.
import {
  Book, Condition, Contract, Depth, FLAG, Follow, KIND, Liquidation, Ticker, Trade, Unknown, decode, split, type Continuity,
} from "../../../languages/js/feedhandler.mjs"

import { KeptBook } from "../../../languages/js/book.mjs"

const book = new KeptBook()
const message: Uint8Array = new Uint8Array(192)
for (const bytes of split(message)) {
  const record = decode(bytes)
  const sequence: bigint = record.sequence
  const received: number = record.recv_ms
  if (record instanceof Ticker) {
    const price: number = record.bid + record.quote_volume_24h
    console.log(record.topic.length, price, record.flags & FLAG.STALE, record.is_live)
  } else if (record instanceof Trade) {
    const id: string = record.trade_id
    console.log(id, record.price * record.size, record.side)
  } else if (record instanceof Contract) {
    const due: bigint = record.next_funding_ns
    console.log(due, record.mark - record.index, record.funding_rate)
  } else if (record instanceof Liquidation) {
    console.log(record.side, record.price * record.size)
  } else if (record instanceof Depth) {
    const best: number = record.bid_levels[0].price
    console.log(best, record.ask_levels.slice(0, record.ask_count).length)
  } else if (record instanceof Book) {
    const id: bigint = record.last_id
    book.apply(record)
    console.log(book.is_valid, book.bids[0].price, book.asks.length, book.last_id === id)
    console.log(id, record.levels.slice(record.bid_count)[0].size, record.part + 1 === record.parts)
  } else if (record instanceof Condition) {
    console.log(record.kind === KIND.CONDITION, record.topic)
  } else if (record instanceof Unknown) {
    console.log(record.kind, record.body.byteLength)
  } else if (record.kind === KIND.STATUS) {
    console.log(record.body.byteLength, record.json())
  }
  const continuity: Continuity = new Follow().take(record.session, sequence)
  console.log(continuity === "gap", received)
  // @ts-expect-error a sequence is no ordinary number
  new Follow().take(record.session, 1)
  // @ts-expect-error a document has no price
  if (!(record instanceof Ticker)) console.log(record.bid)
  // @ts-expect-error fields are read only
  record.flags = 0
}
