/* What book.h makes of messages, each after its length (u32), as lines that test_kept_books.py compares. */
#include <inttypes.h>
#include <stdio.h>

#include "book.h"

static void print_number(double value) {
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    printf(" %016" PRIx64, bits);
}

static void print_side(const fh_side *side) {
    printf(" %zu", side->count);
    for (size_t i = 0; i < side->count; i++) {
        print_number(side->levels[i].price);
        print_number(side->levels[i].size);
    }
}

int main(void) {
    unsigned char length[4];
    fh_kept_book book;
    fh_kept_book_init(&book);
    while (fread(length, 1, 4, stdin) == 4) {
        size_t size = fh_load_u32(length);
        if (!size) { /* the connection was lost */
            fh_kept_book_suspend(&book);
        } else {
            unsigned char *message = malloc(size); /* of exactly that size: a sanitizer sees what reads beyond */
            if (!message || fread(message, 1, size, stdin) != size) abort();
            fh_kept_book_apply(&book, message, size);
            free(message);
        }
        printf("%d %d", book.is_valid, fh_kept_book_lacks_snapshot(&book));
        if (book.is_valid) {
            printf(" %d %" PRIu64 " %" PRIu64, book.is_stale, book.sequence, book.last_id);
            print_number(book.known_from);
            print_number(book.known_to);
            print_side(&book.bids);
            print_side(&book.asks);
        }
        printf(" %s\n", book.reason);
    }
    fh_kept_book_free(&book);
    return 0;
}
