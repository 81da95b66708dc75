/* Reads one slot of a board, whoever writes it, until its input ends, and checks each record: all of its numbers are
 * made of one. Prints how many records it read, how many were mixtures, and how many files it followed. */
#define _POSIX_C_SOURCE 200809L
#include "board.h"

#include <poll.h>
#include <stdio.h>

static int is_whole(const unsigned char *record) {
    uint64_t number, word;
    uint32_t session;
    double value;
    int i;
    memcpy(&number, record + 72, 8);
    memcpy(&session, record + 68, 4);
    if (strcmp((const char *)record, "ticker.x.A/B") != 0 || record[64] != 2 || record[65] != 1 ||
        session != (uint32_t)number)
        return 0;
    for (i = 80; i <= 104; i += 8) {
        memcpy(&word, record + i, 8);
        if (word != number)
            return 0;
    }
    for (i = 112; i < 192; i += 8) {
        memcpy(&value, record + i, 8);
        if (value != (double)number)
            return 0;
    }
    return 1;
}

int main(int argc, char **argv) {
    struct fh_board board = {0};
    struct pollfd input = {0, POLLIN, 0};
    unsigned char record[FH_BOARD_RECORD_SIZE];
    unsigned long long reads = 0, torn = 0, files = 0;
    uint64_t number = 0;
    long slot = -1;
    if (argc != 2)
        return 2;
    while (poll(&input, 1, 0) == 0) {
        int i;
        if (!board.map || (!fh_board_is_alive(&board) && !fh_board_is_current(&board, argv[1]))) {
            fh_board_close(&board);
            slot = -1;
            if (fh_board_open(&board, argv[1]) < 0)
                continue;
            files++;
        }
        if (slot < 0 && (slot = fh_board_find(&board, "ticker.x.A/B")) < 0)
            continue;
        number = fh_board_wait(&board, slot, number, 100000);
        for (i = 0; i < 1000; i++) {
            int found = fh_board_read(&board, slot, record);
            if (found < 0)
                return 3;
            reads += found;
            torn += found && !is_whole(record);
        }
    }
    printf("%llu %llu %llu\n", reads, torn, files);
    return 0;
}
