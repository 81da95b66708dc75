/*
 * What feedhandler.h makes of messages and sequences, as lines that test_readers.py compares.
 *     check records | verdicts < MESSAGES (each after its length, u32)         check follow < STEPS
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "feedhandler.h"

static void print_number(double value) {
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    if (value != value)
        printf("|nan");
    else
        printf("|%016" PRIx64, bits);
}

static void print_level(const fh_level *level) {
    print_number(level->price);
    print_number(level->size);
}

static void print_levels(const fh_level *levels) {
    for (int i = 0; i < 20; i++) print_level(&levels[i]);
}

static void print_record(const fh_record *record, const unsigned char *message, size_t size) {
    char exchange[FH_TOPIC_SIZE];
    const fh_header *h = &record->header;
    const fh_ticker *t = &record->ticker;
    fh_exchange(h, exchange);
    printf("ok|%s|%s|%s|%d|%d|%d|%d|%" PRIu32 "|%" PRIu64 "|%" PRId64 "|%" PRId64 "|%" PRId64, h->topic, exchange,
           fh_symbol(h), h->version, h->kind, h->flags, fh_is_live(h), h->session, h->sequence, h->exchange_ns,
           h->recv_ns, h->publish_ns);
    if (h->kind == FH_KIND_TICKER) {
        printf("|%" PRIu64, t->exchange_sequence);
        print_number(t->last);
        print_number(t->bid);
        print_number(t->bid_size);
        print_number(t->ask);
        print_number(t->ask_size);
        print_number(t->open_24h);
        print_number(t->high_24h);
        print_number(t->low_24h);
        print_number(t->base_volume_24h);
        print_number(t->quote_volume_24h);
    } else if (h->kind == FH_KIND_TRADE) {
        const fh_trade *trade = &record->trade;
        printf("|%" PRIu64, trade->exchange_sequence);
        print_number(trade->price);
        print_number(trade->size);
        printf("|%" PRIu32 "|%d|%d|%d|%.*s", trade->count, trade->side, trade->bits, trade->index,
               (int)sizeof trade->trade_id, trade->trade_id);
    } else if (h->kind == FH_KIND_CONTRACT) {
        const fh_contract *c = &record->contract;
        printf("|%" PRIu64, c->exchange_sequence);
        print_number(c->mark);
        print_number(c->index);
        print_number(c->funding_rate);
        print_number(c->open_interest);
        printf("|%" PRId64, c->next_funding_ns);
        print_number(c->funding_interval_h);
        print_number(c->predicted_funding_rate);
    } else if (h->kind == FH_KIND_LIQUIDATION) {
        const fh_liquidation *l = &record->liquidation;
        printf("|%" PRIu64, l->exchange_sequence);
        print_number(l->price);
        print_number(l->size);
        printf("|%" PRIu32 "|%d|%d|%d|%.*s", l->count, l->side, l->bits, l->index, (int)sizeof l->trade_id,
               l->trade_id);
    } else if (h->kind == FH_KIND_DEPTH) {
        const fh_depth *d = &record->depth;
        printf("|%" PRIu64 "|%d|%d", d->exchange_sequence, d->bid_count, d->ask_count);
        print_levels(d->bid_levels);
        print_levels(d->ask_levels);
    } else if (h->kind == FH_KIND_BOOK) {
        const fh_book *b = &record->book;
        printf("|%" PRIu64 "|%" PRIu64 "|%d|%d|%d|%d", b->first_id, b->last_id, b->bid_count, b->ask_count, b->part, b->parts);
        for (size_t i = 0; i < (size_t)b->bid_count + b->ask_count; i++) {
            fh_level level;
            fh_level_load(&level, message + FH_BOOK_SIZE + i * sizeof level);
            print_level(&level);
        }
    } else {
        if (t->last == t->last || t->quote_volume_24h == t->quote_volume_24h) abort();
        if (fh_is_document(h->kind))
            printf("|%.*s", (int)(size - FH_HEADER_SIZE), (const char *)message + FH_HEADER_SIZE);
        else if (!fh_kind_size(h->kind)) {
            printf("|unknown ");
            for (size_t at = FH_HEADER_SIZE; at < size; at++) printf("%02x", message[at]);
        }
    }
    putchar('\n');
}

static void messages(int is_verdict) {
    unsigned char length[4];
    while (fread(length, 1, 4, stdin) == 4) {
        size_t size = fh_load_u32(length);
        unsigned char *message = malloc(size); /* of exactly that size: a sanitizer sees what reads beyond */
        if (size && fread(message, 1, size, stdin) != size) abort();
        size_t step, at = 0;
        do {
            fh_record record;
            step = fh_record_size(message + at, size - at);
            fh_error error = fh_decode(message + at, step, &record);
            if (error || is_verdict)
                printf("%s\n", fh_error_name(error));
            else
                print_record(&record, message + at, step);
            at += step;
        } while (at < size);
        puts(".");
        free(message);
    }
}

static void follow(void) {
    static const char *const CONTINUITIES[] = {"first", "next", "gap", "new_session", "duplicate"};
    fh_follow state = {0};
    char line[100];
    while (fgets(line, sizeof line, stdin)) {
        uint32_t session;
        uint64_t sequence;
        if (sscanf(line, "%" SCNu32 " %" SCNu64, &session, &sequence) != 2) {
            state = (fh_follow){0};
            continue;
        }
        fh_continuity continuity = fh_follow_take(&state, session, sequence);
        printf("%s %" PRIu64 " %" PRIu64 " %" PRIu64 "\n", CONTINUITIES[continuity], state.missing, state.lost, state.gaps);
    }
}

int main(int count, char **arguments) {
    if (count > 1 && !strcmp(arguments[1], "follow"))
        follow();
    else
        messages(count > 1 && !strcmp(arguments[1], "verdicts"));
    return 0;
}
