/*
 * One topic's book, kept from its records as docs/wire.md says ("Book"): its levels, or nothing while any record is
 * missing. Needs feedhandler.h beside it; allocates with malloc.
 *
 *     fh_kept_book book;
 *     fh_kept_book_init(&book);
 *     fh_kept_book_apply(&book, message, size);      each record of the topic, and each condition of it, in order
 *     if (book.is_valid && book.bids.count) printf("%g\n", book.bids.levels[0].price);
 *
 * Who joins in mid-stream, or missed something (fh_kept_book_lacks_snapshot), asks the relay: examples/c/book.c.
 * C11 or C++11. Nothing here reads beyond the size that it is given.
 */
#ifndef FEEDHANDLER_BOOK_H
#define FEEDHANDLER_BOOK_H

#include <math.h>
#include <stdlib.h>

#include "feedhandler.h"

/* One side, the best level first. */
typedef struct fh_side {
    fh_level *levels;
    size_t count;
    size_t room;
} fh_side;

typedef struct fh_kept_book {
    /* The levels may be used. While it is false there are none, and reason says why. */
    bool is_valid;
    const char *reason;
    bool is_stale;
    fh_side bids, asks;
    uint32_t session;
    uint64_t sequence; /* of the newest record that is in the book */
    uint64_t last_id;  /* the exchange's id of its last change */
    double known_from; /* the lowest price from which all bids are known; 0: all are */
    double known_to;   /* the highest price to which all asks are known; infinite: all are */

    /* What follows is for the functions below. */
    bool has_base, is_down, is_told_invalid;
    uint64_t seen, base_sequence, invalid_sequence; /* the last is one more than that number; 0: there was none */
    fh_side new_bids, new_asks;                     /* of a message of which parts have come */
    uint16_t parts_come, parts;
    uint64_t first_id, parts_last_id, first_sequence;
} fh_kept_book;

static inline void fh_kept_book_init(fh_kept_book *book) {
    memset(book, 0, sizeof *book);
    book->reason = "no snapshot has come yet";
}

static inline void fh_kept_book_free(fh_kept_book *book) {
    free(book->bids.levels);
    free(book->asks.levels);
    free(book->new_bids.levels);
    free(book->new_asks.levels);
    fh_kept_book_init(book);
}

/* True if it will not be valid before another snapshot, and somebody else may have one. */
static inline bool fh_kept_book_lacks_snapshot(const fh_kept_book *book) {
    return !book->has_base && !book->parts_come && !book->is_told_invalid;
}

static inline void fh_kept_book_doubt_(fh_kept_book *book, const char *reason) {
    book->is_valid = book->has_base = book->is_down = book->is_stale = book->is_told_invalid = false;
    book->reason = reason;
    book->bids.count = book->asks.count = 0;
    book->parts_come = 0;
    book->last_id = 0;
}

static inline void fh_kept_book_invalid_(fh_kept_book *book, uint64_t sequence) {
    fh_kept_book_doubt_(book, "the feed says that it is invalid");
    book->is_told_invalid = true;
    if (sequence >= book->invalid_sequence) book->invalid_sequence = sequence + 1;
}

static inline void fh_kept_book_begin_(fh_kept_book *book, uint32_t session, uint64_t sequence) {
    fh_kept_book_doubt_(book, book->session ? "the merger was restarted" : "no snapshot has come yet");
    book->session = session;
    book->seen = sequence;
    book->sequence = book->invalid_sequence = 0;
}

static inline bool fh_side_grow_(fh_side *side) {
    size_t room = side->room ? 2 * side->room : 64;
    fh_level *levels = (fh_level *)realloc(side->levels, room * sizeof *levels);
    if (!levels) return false;
    side->levels = levels;
    side->room = room;
    return true;
}

/* Append a level, in whatever order they come. */
static inline bool fh_side_put_(fh_side *side, fh_level level) {
    if (side->count == side->room && !fh_side_grow_(side)) return false;
    side->levels[side->count++] = level;
    return true;
}

/* Set the size at a price; 0 removes the level, if there is one. */
static inline bool fh_side_set_(fh_side *side, bool is_bids, fh_level level) {
    size_t low = 0, high = side->count;
    if (!(level.price > 0)) return true;
    while (low < high) {
        size_t middle = (low + high) / 2;
        double other = side->levels[middle].price;
        if (is_bids ? other > level.price : other < level.price)
            low = middle + 1;
        else
            high = middle;
    }
    bool is_there = low < side->count && side->levels[low].price == level.price;
    if (level.size == 0) {
        if (is_there) {
            side->count--;
            memmove(side->levels + low, side->levels + low + 1, (side->count - low) * sizeof level);
        }
        return true;
    }
    if (!is_there) {
        if (side->count == side->room && !fh_side_grow_(side)) return false;
        memmove(side->levels + low + 1, side->levels + low, (side->count - low) * sizeof level);
        side->count++;
    }
    side->levels[low] = level;
    return true;
}

/* Keep a part's levels until its message is complete; false for what are none. */
static inline bool fh_kept_book_collect_(fh_kept_book *book, const fh_book *record, const unsigned char *entries,
                                         bool is_snapshot) {
    size_t bids = record->bid_count, count = bids + record->ask_count;
    for (size_t i = 0; i < count; i++) {
        fh_side *side = i < bids ? &book->new_bids : &book->new_asks;
        fh_level level, next;
        fh_level_load(&level, entries + i * sizeof level);
        if (!(level.price >= 0 && level.price <= DBL_MAX && level.size >= 0 && level.size <= DBL_MAX)) return false;
        if (!fh_side_put_(side, level)) return false;
        if ((i != 0 && i != bids) || level.size != 0) continue;
        /* The first level of a side, without a size: nothing is known beyond it, if that is not a change. */
        if (!is_snapshot) {
            if (i + 1 >= (i < bids ? bids : count)) continue;
            fh_level_load(&next, entries + (i + 1) * sizeof level);
            if (next.price != level.price) continue;
        }
        side->levels[side->count - 1].size = -1; /* no size is: see fh_kept_book_change_ */
    }
    return true;
}

/* Set the levels of a complete message. */
static inline bool fh_kept_book_change_(fh_kept_book *book) {
    for (int which = 0; which < 2; which++) {
        fh_side *side = which ? &book->asks : &book->bids, *levels = which ? &book->new_asks : &book->new_bids;
        for (size_t i = 0; i < levels->count; i++) {
            fh_level level = levels->levels[i];
            if (level.size < 0) { /* where what is known ends */
                if (level.price > 0) *(which ? &book->known_to : &book->known_from) = level.price;
                level.size = 0;
            }
            if (!fh_side_set_(side, !which, level)) return false;
        }
    }
    return true;
}

static inline void fh_kept_book_apply_condition_(fh_kept_book *book, const fh_header *header) {
    bool is_invalid = header->flags & FH_FLAG_INVALID;
    if (header->session != book->session) {
        fh_kept_book_begin_(book, header->session, header->sequence);
    } else if (header->sequence < book->seen) {
        /* An old one; but INVALID ends with nothing but a snapshot. */
        if (is_invalid && header->sequence >= book->base_sequence) fh_kept_book_invalid_(book, header->sequence);
        return;
    } else if (header->sequence > book->seen) {
        book->seen = header->sequence;
        fh_kept_book_doubt_(book, "a record was missed");
    }
    if (is_invalid) {
        fh_kept_book_invalid_(book, header->sequence);
        return;
    }
    book->is_stale = book->has_base && header->flags & FH_FLAG_STALE;
    if (book->has_base) {
        book->is_down = header->flags & FH_FLAG_DOWN;
        book->is_valid = !book->is_down;
        book->reason = book->is_down ? "it is down" : "";
    }
}

static inline void fh_kept_book_take_(fh_kept_book *book, const fh_book *record, const unsigned char *entries,
                                      bool is_snapshot) {
    if (record->part != book->parts_come || record->part >= record->parts ||
        (book->parts_come && (record->first_id != book->first_id || record->last_id != book->parts_last_id ||
                              record->parts != book->parts))) {
        fh_kept_book_doubt_(book, "a part of a message is missing");
        return;
    }
    if (!book->parts_come) {
        book->new_bids.count = book->new_asks.count = 0;
        book->first_id = record->first_id;
        book->parts_last_id = record->last_id;
        book->parts = record->parts;
        book->first_sequence = record->header.sequence;
    }
    if (!fh_kept_book_collect_(book, record, entries, is_snapshot)) {
        fh_kept_book_doubt_(book, "a record cannot be read");
        return;
    }
    if (++book->parts_come < book->parts) return;
    book->parts_come = 0;
    if (is_snapshot) {
        book->bids.count = book->asks.count = 0;
        book->known_from = 0;
        book->known_to = INFINITY;
        book->base_sequence = book->first_sequence;
    } else if (record->first_id > book->last_id + 1 || record->last_id <= book->last_id) {
        fh_kept_book_doubt_(book, "the exchange's ids do not follow");
        return;
    }
    if (!fh_kept_book_change_(book)) {
        fh_kept_book_doubt_(book, "there is no memory for it");
        return;
    }
    book->last_id = record->last_id;
    book->sequence = record->header.sequence;
    book->has_base = book->is_valid = true;
    book->is_down = book->is_stale = false;
    book->reason = "";
}

/*
 * Take the next message of the topic: a record of its book, or a condition of it; of anything else, false is
 * returned, and the book has doubts. Records that are older than the book change nothing. Parts of a snapshot that
 * the relay sends have all one number.
 */
static inline bool fh_kept_book_apply(fh_kept_book *book, const void *message, size_t size) {
    fh_record record;
    if (fh_decode(message, size, &record) != FH_OK ||
        (record.header.kind != FH_KIND_BOOK && record.header.kind != FH_KIND_CONDITION)) {
        fh_kept_book_doubt_(book, "a record cannot be read");
        return false;
    }
    const fh_header *header = &record.header;
    if (header->kind == FH_KIND_CONDITION) {
        fh_kept_book_apply_condition_(book, header);
        return true;
    }
    bool is_snapshot = header->flags & FH_FLAG_SNAPSHOT;
    if (header->session != book->session) {
        fh_kept_book_begin_(book, header->session, header->sequence);
    } else if (is_snapshot && book->parts_come && record.book.part == book->parts_come &&
               record.book.first_id == book->first_id && record.book.last_id == book->parts_last_id &&
               record.book.parts == book->parts &&
               (header->sequence == book->seen || header->sequence == book->seen + 1)) {
        /* the next part */
    } else if (is_snapshot && !record.book.part && header->sequence >= book->invalid_sequence &&
               !(book->has_base && header->sequence <= book->seen)) {
        book->parts_come = 0; /* another base, whatever came before it */
    } else if (header->sequence <= book->seen) {
        if (header->sequence == book->seen && book->has_base && !book->is_down) {
            book->is_valid = true; /* the newest is the one that is known: nothing was missed */
            book->reason = "";
        }
        return true;
    } else if (header->sequence != book->seen + 1) {
        book->seen = header->sequence;
        fh_kept_book_doubt_(book, "a record was missed");
        return true;
    }
    book->seen = header->sequence;
    if (header->flags & FH_FLAG_INVALID) {
        fh_kept_book_invalid_(book, header->sequence);
    } else if (!is_snapshot && !book->has_base) {
        book->parts_come = 0;
    } else {
        fh_kept_book_take_(book, &record.book, (const unsigned char *)message + FH_BOOK_SIZE, is_snapshot);
    }
    return true;
}

/* The connection was lost: nothing counts until it is known that nothing was missed. */
static inline void fh_kept_book_suspend(fh_kept_book *book) {
    if (book->has_base) {
        book->is_valid = book->is_down = false;
        book->reason = "the connection was lost";
    }
}

#endif
