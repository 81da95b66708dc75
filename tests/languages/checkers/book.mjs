// What book.mjs makes of messages; see book.c.
import { readFileSync } from "node:fs"
import { KeptBook } from "../../../languages/js/book.mjs"
import { DecodeError, decode } from "../../../languages/js/feedhandler.mjs"

const bits = (value) => {
  const view = new DataView(new ArrayBuffer(8))
  view.setFloat64(0, value)
  return view.getBigUint64(0).toString(16).padStart(16, "0")
}
const side = (levels) => [levels.length, ...levels.flatMap(({ price, size }) => [bits(price), bits(size)])]
const out = []
const book = new KeptBook()
const input = readFileSync(0)
for (let at = 0; at < input.length; ) {
  const size = input.readUInt32LE(at)
  const message = input.subarray(at + 4, at + 4 + size)
  at += 4 + size
  if (!size) book.suspend()
  else
    try {
      book.apply(decode(message))
    } catch (error) {
      if (!(error instanceof DecodeError)) throw error
      book.doubt()
    }
  const words = [Number(book.is_valid), Number(book.lacks_snapshot)]
  if (book.is_valid) {
    words.push(Number(book.is_stale), book.sequence, book.last_id, bits(book.known_from), bits(book.known_to))
    words.push(...side(book.bids), ...side(book.asks))
  } else if (book.bids.length || book.asks.length) throw new Error("levels of a book that is not valid")
  out.push([...words, book.reason].join(" "))
}
process.stdout.write(out.join("\n") + "\n")
