/**
 * One topic's book, kept from its records as docs/wire.md says ("Book"): its levels, or nothing while any record is
 * missing. Needs feedhandler.mjs beside it.
 *
 *     const book = new KeptBook()
 *     book.apply(decode(bytes))          // each record of the topic, and each condition of it, in order
 *     if (book.is_valid) console.log(book.bids[0].price, book.asks.slice(0, 5))
 *
 * Who joins in mid-stream, or missed something (`lacks_snapshot`), asks the relay: examples/node/book.mjs.
 */
import { Book, Condition, FLAG } from "./feedhandler.mjs"

const NO_SNAPSHOT = "no snapshot has come yet"
const MISSED = "a record was missed"
const UNLINKED = "the exchange's ids do not follow"
const CUT_SHORT = "a part of a message is missing"
const DAMAGED = "a record cannot be read"
const RESTARTED = "the merger was restarted"
const INVALID = "the feed says that it is invalid"
const DOWN = "it is down"
const LOST = "the connection was lost"

const isNumber = (value) => value >= 0 && value < Infinity

/** Set the size at a price; 0 removes the level, if there is one. */
const set = (side, isBids, { price, size }) => {
  if (!(price > 0)) return
  let low = 0
  let high = side.length
  while (low < high) {
    const middle = (low + high) >> 1
    const other = side[middle].price
    if (isBids ? other > price : other < price) low = middle + 1
    else high = middle
  }
  const isThere = low < side.length && side[low].price === price
  if (size === 0) {
    if (isThere) side.splice(low, 1)
  } else if (isThere) side[low] = { price, size }
  else side.splice(low, 0, { price, size })
}

/** The price beyond which nothing is known, if a side of a record says that by its first level. */
const edgeOf = (levels, isSnapshot) => {
  if (!levels.length || levels[0].size !== 0) return 0
  return isSnapshot || (levels.length > 1 && levels[1].price === levels[0].price) ? levels[0].price : 0
}

const isOf = (record, first) =>
  record.first_id === first.first_id && record.last_id === first.last_id && record.parts === first.parts

export class KeptBook {
  /** Why it is not valid; "" while it is. */
  reason = NO_SNAPSHOT
  is_stale = false
  session = 0
  /** Of the newest record that is in the book. */
  sequence = 0n
  /** The exchange's id of its last change. */
  last_id = 0n
  /** The lowest price from which all bids are known (0: all are), and the highest to which all asks are. */
  known_from = 0
  known_to = Infinity
  #bids = []
  #asks = []
  #hasBase = false
  #seen = 0n
  #baseSequence = 0n
  #invalidSequence = -1n
  #parts = [] // of a message that is not complete

  /** True if the levels may be used; otherwise there are none. */
  get is_valid() {
    return this.reason === ""
  }

  /** The levels, best first: { price, size }. They change as the book does: copy what you keep. */
  get bids() {
    return this.is_valid ? this.#bids : []
  }

  get asks() {
    return this.is_valid ? this.#asks : []
  }

  /** True if it will not be valid before another snapshot, and somebody else may have one. */
  get lacks_snapshot() {
    return !this.#hasBase && !this.#parts.length && this.reason !== INVALID
  }

  /** The connection was lost: nothing counts until it is known that nothing was missed. */
  suspend() {
    if (this.#hasBase) this.reason = LOST
  }

  /** Take what `decode` made of the topic's next message; what is older than the book changes nothing. */
  apply(record) {
    if (record instanceof Condition) return this.#applyCondition(record)
    if (!(record instanceof Book)) throw new TypeError("a book is made of book records and conditions")
    const { flags, sequence, part } = record
    const isSnapshot = Boolean(flags & FLAG.SNAPSHOT)
    if (record.session !== this.session) this.#begin(record.session)
    else if (isSnapshot && this.#continues(record));
    else if (
      isSnapshot &&
      !part &&
      sequence > this.#invalidSequence &&
      !(this.#hasBase && sequence <= this.#seen)
    )
      this.#parts = [] // another base, whatever came before it
    else if (sequence <= this.#seen) {
      if (sequence === this.#seen && this.reason === LOST) this.reason = "" // nothing was missed
      return
    } else if (sequence !== this.#seen + 1n) {
      this.#seen = sequence
      return this.doubt(MISSED)
    }
    this.#seen = sequence
    if (flags & FLAG.INVALID) this.doubt(INVALID)
    else if (!isSnapshot && !this.#hasBase) this.#parts = []
    else this.#take(record, isSnapshot)
  }

  /** Have no levels until the next snapshot: for a message that cannot be decoded, too. */
  doubt(reason = DAMAGED) {
    this.reason = reason
    this.#hasBase = this.is_stale = false
    this.#parts = []
    this.#bids = []
    this.#asks = []
    this.last_id = 0n
  }

  #begin(session) {
    this.doubt(this.session ? RESTARTED : NO_SNAPSHOT)
    this.session = session
    this.sequence = 0n
    this.#invalidSequence = -1n
  }

  #markInvalid(sequence) {
    if (sequence > this.#invalidSequence) this.#invalidSequence = sequence
    this.doubt(INVALID)
  }

  #applyCondition({ flags, session, sequence }) {
    const isInvalid = Boolean(flags & FLAG.INVALID)
    if (session !== this.session) {
      this.#begin(session)
      this.#seen = sequence
    } else if (sequence < this.#seen) {
      // An old one; but INVALID ends with nothing but a snapshot.
      if (isInvalid && sequence >= this.#baseSequence) this.#markInvalid(sequence)
      return
    } else if (sequence > this.#seen) {
      this.#seen = sequence
      this.doubt(MISSED)
    }
    if (isInvalid) return this.#markInvalid(sequence)
    this.is_stale = this.#hasBase && Boolean(flags & FLAG.STALE)
    if (this.#hasBase) this.reason = flags & FLAG.DOWN ? DOWN : ""
  }

  /** Those that a relay sends have one number. */
  #continues(record) {
    const parts = this.#parts
    if (!parts.length || record.part !== parts.length || !isOf(record, parts[0])) return false
    return record.sequence === this.#seen || record.sequence === this.#seen + 1n
  }

  #take(record, isSnapshot) {
    const parts = this.#parts
    if (record.part !== parts.length || record.part >= record.parts || (parts.length && !isOf(record, parts[0])))
      return this.doubt(CUT_SHORT)
    parts.push(record)
    if (parts.length < record.parts) return
    this.#parts = []
    if (isSnapshot) {
      this.#bids = []
      this.#asks = []
      this.known_from = 0
      this.known_to = Infinity
      this.#baseSequence = parts[0].sequence
    } else if (record.first_id > this.last_id + 1n || record.last_id <= this.last_id) return this.doubt(UNLINKED)
    for (const each of parts) {
      const levels = each.levels
      if (!levels.every(({ price, size }) => isNumber(price) && isNumber(size))) return this.doubt(DAMAGED)
      const bids = levels.slice(0, each.bid_count)
      const asks = levels.slice(each.bid_count)
      this.known_from = edgeOf(bids, isSnapshot) || this.known_from
      this.known_to = edgeOf(asks, isSnapshot) || this.known_to
      for (const level of bids) set(this.#bids, true, level)
      for (const level of asks) set(this.#asks, false, level)
    }
    this.last_id = record.last_id
    this.sequence = record.sequence
    this.#hasBase = true
    this.is_stale = false
    this.reason = ""
  }
}
