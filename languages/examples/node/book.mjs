// Keeps one book, and prints its best levels whenever it changes. With the zeromq package, version 6.
//
//     npm install
//     node book.mjs TOPIC [ENDPOINT [RELAY]]          such as book.binance.BTC/USDT
//
// It subscribes first and asks the relay then, when the first heartbeat tells that the subscription is in force. What
// comes while the answer is awaited is applied after it: what is older than the snapshot changes nothing.
import { Dealer, Subscriber } from "zeromq"
import { KeptBook } from "../../js/book.mjs"
import { Book, DecodeError, FLAG, KIND, decode, split } from "../../js/feedhandler.mjs"

const PATIENCE_MS = 1000
const [topic, endpoint = "tcp://127.0.0.1:5555", recover = "tcp://127.0.0.1:5556"] = process.argv.slice(2)
if (!topic) {
  console.error("usage: node book.mjs TOPIC [ENDPOINT [RELAY]]")
  process.exit(2)
}
const book = new KeptBook()
const relay = new Dealer()
let waiting = [] // records that came while an answer was awaited
let isSubscribed = false
let isAsking = false
let isUncertain = false
let askedMs = -Infinity
let printed = ""

const apply = (record) => (record ? book.apply(record) : book.doubt())

const print = () => {
  const [bid, ask] = [book.bids[0], book.asks[0]]
  let line = `${topic} is not valid: ${book.reason}`
  if (book.is_valid) {
    line = `${topic} #${book.sequence} id ${book.last_id} bids ${book.bids.length} asks ${book.asks.length}`
    if (bid) line += ` bid ${bid.price} x ${bid.size}`
    if (ask) line += ` ask ${ask.price} x ${ask.size}`
  }
  if (line !== printed) console.log(line)
  printed = line
}

const applyWaiting = () => {
  isAsking = false
  const records = waiting
  waiting = []
  records.forEach(apply)
}

const ask = async () => {
  if (isAsking || !isSubscribed || performance.now() - askedMs < PATIENCE_MS) return
  if (!isUncertain && !book.lacks_snapshot) return
  isAsking = true
  askedMs = performance.now()
  await relay.send(JSON.stringify({ topics: [`${topic}\0`] })) // exactly this topic
}

const read = (bytes) => {
  try {
    return decode(bytes)
  } catch (error) {
    if (!(error instanceof DecodeError)) throw error
    return null
  }
}

process.stdout.on("error", (error) => {
  if (error.code !== "EPIPE") throw error
  process.exit(0) // it was closed, as `| head` does
})
const sub = new Subscriber({ receiveHighWaterMark: 100_000, heartbeatInterval: 1000, heartbeatTimeout: 5000 })
sub.subscribe(`${topic}\0`, "heartbeat.") // that one last
sub.connect(endpoint)
relay.connect(recover)
setInterval(() => {
  if (isAsking && performance.now() - askedMs > PATIENCE_MS) applyWaiting()
  ask()
  print()
}, 100)

const answers = async () => {
  for await (const [, records] of relay) {
    // A condition here says what the relay has, and nothing about this book.
    for (const record of records.length ? split(records).map(read) : []) if (record instanceof Book) apply(record)
    isUncertain = false
    applyWaiting()
    print()
  }
}
answers()
for await (const [message] of sub) {
  const record = read(message)
  if (record?.kind === KIND.HEARTBEAT) {
    // Flagged, it is the first of a connection: what was sent before that was missed.
    if (record.flags & FLAG.SNAPSHOT) {
      isSubscribed = isUncertain = true
      book.suspend()
    }
  } else {
    apply(record)
    if (isAsking || book.lacks_snapshot) waiting.push(record)
  }
  await ask()
  print()
}
