// Types of book.mjs; what functions do is described there.
import { Book, Condition, Level } from "./feedhandler.mjs"

export class KeptBook {
  readonly reason: string
  readonly is_stale: boolean
  readonly session: number
  readonly sequence: bigint
  readonly last_id: bigint
  readonly known_from: number
  readonly known_to: number
  get is_valid(): boolean
  get bids(): readonly Level[]
  get asks(): readonly Level[]
  get lacks_snapshot(): boolean
  suspend(): void
  doubt(reason?: string): void
  apply(record: Book | Condition): void
}
