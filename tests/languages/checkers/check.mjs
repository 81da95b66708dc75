// What feedhandler.mjs makes of messages and sequences; see check.c.
import { readFileSync } from "node:fs"
import {
  Book, Contract, DecodeError, Depth, Document, Follow, Liquidation, Ticker, Trade, Unknown, decode, split,
} from "../../../languages/js/feedhandler.mjs"

const VALUES = [
  "last", "bid", "bid_size", "ask", "ask_size", "open_24h", "high_24h", "low_24h", "base_volume_24h", "quote_volume_24h",
]
const out = []

const bits = (value) => {
  const view = new DataView(new ArrayBuffer(8))
  view.setFloat64(0, value)
  return Number.isNaN(value) ? "nan" : view.getBigUint64(0).toString(16).padStart(16, "0")
}

/** The ordinary numbers are what they are documented to be of the exact ones. */
const checkNumbers = (r) => {
  for (const name of ["exchange", "recv", "publish"]) {
    const exact = Number(r[`${name}_ns`]) / 1e6
    if (Math.abs(r[`${name}_ms`] - exact) > Math.max(0.001, Math.abs(exact) * 2 ** -51)) throw new Error(name)
  }
  if (r.sequence_number !== Number(r.sequence)) throw new Error("sequence")
  if (r instanceof Ticker && r.exchange_sequence_number !== Number(r.exchange_sequence)) throw new Error("exchange_sequence")
}

const line = (r) => {
  checkNumbers(r)
  const words = ["ok", r.topic, r.exchange, r.symbol, r.version, r.kind, r.flags, Number(r.is_live), r.session]
  words.push(r.sequence, r.exchange_ns, r.recv_ns, r.publish_ns)
  if (r instanceof Ticker) words.push(r.exchange_sequence, ...VALUES.map((name) => bits(r[name])))
  if (r instanceof Trade || r instanceof Liquidation) {
    words.push(r.exchange_sequence, bits(r.price), bits(r.size), r.count, r.side, r.bits, r.index, r.trade_id)
  }
  if (r instanceof Contract) {
    words.push(r.exchange_sequence, bits(r.mark), bits(r.index), bits(r.funding_rate), bits(r.open_interest))
    words.push(r.next_funding_ns, bits(r.funding_interval_h), bits(r.predicted_funding_rate))
  }
  if (r instanceof Depth) {
    words.push(r.exchange_sequence, r.bid_count, r.ask_count)
    for (const { price, size } of [...r.bid_levels, ...r.ask_levels]) words.push(bits(price), bits(size))
  }
  if (r instanceof Book) {
    words.push(r.first_id, r.last_id, r.bid_count, r.ask_count, r.part, r.parts)
    for (const { price, size } of r.levels) words.push(bits(price), bits(size))
  }
  if (r instanceof Unknown) words.push(`unknown ${Buffer.from(r.body).toString("hex")}`)
  if (r instanceof Document) {
    words.push(Buffer.from(r.body).toString())
    r.json()
  }
  return words.join("|")
}

const verdict = (bytes, isVerdict) => {
  try {
    const record = decode(bytes)
    return isVerdict ? "ok" : line(record)
  } catch (error) {
    if (!(error instanceof DecodeError)) throw error
    return error.code
  }
}

const messages = (isVerdict) => {
  const input = readFileSync(0)
  for (let at = 0; at < input.length; ) {
    const size = input.readUInt32LE(at)
    // Of exactly that size, and not at the beginning of its buffer.
    const message = new Uint8Array(new ArrayBuffer(size + 3), 3, size)
    message.set(input.subarray(at + 4, at + 4 + size))
    at += 4 + size
    for (const bytes of split(message)) out.push(verdict(bytes, isVerdict))
    if (verdict(message.slice().buffer, true) !== verdict(message, true)) throw new Error("ArrayBuffer")
    out.push(".")
  }
}

const follow = () => {
  let state = new Follow()
  for (const text of readFileSync(0, "utf8").split("\n").slice(0, -1)) {
    const words = text.split(" ")
    if (words.length !== 2) {
      state = new Follow()
      continue
    }
    const continuity = state.take(Number(words[0]), BigInt(words[1]))
    out.push([continuity, state.missing, state.lost, state.gaps].join(" "))
  }
}

if (process.argv[2] === "follow") follow()
else messages(process.argv[2] === "verdicts")
process.stdout.write(out.join("\n") + "\n")
