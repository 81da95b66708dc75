// Prints the stream, and says what is missing from it. With the zeromq package, version 6.
//
//     npm install
//     node subscribe.mjs [ENDPOINT [PREFIX...]]
import { Subscriber } from "zeromq"
import { DecodeError, Document, Follow, KIND, Ticker, decode, split } from "../../js/feedhandler.mjs"

const topics = new Map() // what is known of each topic's sequence

const take = (bytes) => {
  const record = decode(bytes)
  const { topic, sequence } = record
  let follow = topics.get(topic)
  if (!follow) topics.set(topic, (follow = new Follow()))
  // A notice is about this connection alone, and a condition has no number of its own.
  const hasNumber = record.kind !== KIND.NOTICE && record.kind !== KIND.CONDITION
  const continuity = hasNumber ? follow.take(record.session, sequence) : "next"
  switch (continuity) {
    case "duplicate":
      return // a snapshot of what is known already
    case "gap":
      console.log(`${topic}: ${follow.missing} lost before #${sequence}`)
      break
    case "new_session":
      console.log(`${topic}: the merger was restarted`)
  }
  const note = record.is_live ? "" : " NOT LIVE"
  if (record instanceof Ticker)
    console.log(`${topic} #${sequence} last ${record.last} bid ${record.bid} ask ${record.ask}${note}`)
  else if (record instanceof Document) console.log(`${topic} #${sequence} ${Buffer.from(record.body)}${note}`)
  else console.log(`${topic} #${sequence} of kind ${record.kind}${note}`)
}

process.stdout.on("error", (error) => {
  if (error.code !== "EPIPE") throw error
  process.exit(0) // it was closed, as `| head` does
})
const [endpoint = "tcp://127.0.0.1:5555", ...prefixes] = process.argv.slice(2)
const sub = new Subscriber({
  receiveHighWaterMark: 100_000, // messages that wait for us before libzmq drops: a gap, which we see
  heartbeatInterval: 1000, // ms; a connection that died without a word is made again
  heartbeatTimeout: 5000,
})
sub.subscribe(...(prefixes.length ? prefixes : ["ticker."]))
sub.connect(endpoint)
for await (const [message] of sub) {
  // A batch has several records.
  for (const bytes of split(message)) {
    try {
      take(bytes)
    } catch (error) {
      if (!(error instanceof DecodeError)) throw error
      console.error(`a message of ${bytes.length} bytes is refused: ${error.code}`)
    }
  }
}
