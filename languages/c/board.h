/* Reading the board: the newest record of any topic, from memory. C11, Linux, one header, no library.
 *
 * The layout is described in docs/board.md, a record in docs/wire.md. Numbers are little-endian, as the processor's
 * must be. A reader takes nothing from the writer and is never waited for; it calls the kernel in fh_board_open,
 * fh_board_close and fh_board_is_current only (clock_gettime needs no call on usual hosts).
 *
 *     struct fh_board board;
 *     if (fh_board_open(&board, "run/board/binance.board") == 0) {
 *         long slot = fh_board_find(&board, "ticker.binance.BTC/USDT");
 *         unsigned char record[FH_BOARD_RECORD_SIZE];
 *         if (slot >= 0 && fh_board_read(&board, slot, record) == 1 && fh_board_is_alive(&board)) ...
 *     }
 *
 * A feed that starts anew makes a new file: when fh_board_is_alive says no, ask fh_board_is_current, and open again
 * if that says no as well. Slots never move while a file lives. Whoever cuts the file of a board short ends those who
 * have it mapped by SIGBUS: docs/board.md says what to do about that.
 */
#ifndef FEEDHANDLER_BOARD_READER
#define FEEDHANDLER_BOARD_READER

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#if !defined(__BYTE_ORDER__) || __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "boards are little-endian"
#endif

enum {
    FH_BOARD_VERSION = 2,
    FH_BOARD_WIRE_VERSION = 2,
    FH_BOARD_HEADER_SIZE = 4096,
    FH_BOARD_RECORD_SIZE = 192,
    FH_BOARD_TOPIC_SIZE = 64,
    FH_BOARD_CELL_SIZE = 256,
    FH_BOARD_SLOT_HEADER_SIZE = 128,
    FH_BOARD_NEWEST_OFFSET = 64,
    FH_BOARD_COUNT_OFFSET = 64,
    FH_BOARD_HEARTBEAT_MONO_NS_OFFSET = 136,
    FH_BOARD_CLOSED_OFFSET = 192,
    FH_BOARD_DEPTH_MIN = 2,
    FH_BOARD_DEPTH_MAX = 1025,
    FH_BOARD_SLOTS_MAX = 50000,
    FH_BOARD_DEAD_NS = 1000000000,
    FH_BOARD_AHEAD_NS_MAX = 100000000,
    FH_BOARD_TRIES_MAX = 10000
};

struct fh_board {
    const unsigned char *map;
    size_t size;
    size_t slot_size;
    uint32_t depth;
    uint32_t slots_max;
    uint32_t session; /* Unix seconds at which the writer started */
    dev_t device;
    ino_t inode;
};

static inline uint64_t fh_board_word(const struct fh_board *board, size_t offset) {
    return atomic_load_explicit((const _Atomic uint64_t *)(const void *)(board->map + offset), memory_order_acquire);
}

static inline uint32_t fh_board_u32(const unsigned char *at) {
    uint32_t value;
    memcpy(&value, at, sizeof value);
    return value;
}

/* Map a board. 0, or a negative errno: -EPROTO for what is no board of this version. */
static inline int fh_board_open(struct fh_board *board, const char *path) {
    struct stat status;
    unsigned char *map;
    int fd = open(path, O_RDONLY | O_CLOEXEC), error = -EPROTO;
    memset(board, 0, sizeof *board);
    if (fd < 0)
        return -errno;
    if (fstat(fd, &status) < 0) {
        error = -errno;
        close(fd);
        return error;
    }
    if (status.st_size < FH_BOARD_HEADER_SIZE) {
        close(fd);
        return -EPROTO;
    }
    map = mmap(NULL, (size_t)status.st_size, PROT_READ, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED) {
        error = -errno;
        close(fd);
        return error;
    }
    close(fd);
    board->map = map;
    board->size = (size_t)status.st_size;
    board->depth = fh_board_u32(map + 28);
    board->slot_size = fh_board_u32(map + 32);
    board->slots_max = fh_board_u32(map + 36);
    board->session = fh_board_u32(map + 44);
    board->device = status.st_dev;
    board->inode = status.st_ino;
    if (memcmp(map, "FHBOARD", 8) == 0 && fh_board_u32(map + 8) == FH_BOARD_VERSION &&
        fh_board_u32(map + 12) == FH_BOARD_WIRE_VERSION && fh_board_u32(map + 16) == FH_BOARD_HEADER_SIZE &&
        fh_board_u32(map + 20) == FH_BOARD_RECORD_SIZE && fh_board_u32(map + 24) == FH_BOARD_CELL_SIZE &&
        board->depth >= FH_BOARD_DEPTH_MIN && board->depth <= FH_BOARD_DEPTH_MAX &&
        board->slot_size == FH_BOARD_SLOT_HEADER_SIZE + board->depth * (size_t)FH_BOARD_CELL_SIZE &&
        board->slots_max >= 1 && board->slots_max <= FH_BOARD_SLOTS_MAX &&
        board->size >= FH_BOARD_HEADER_SIZE + board->slots_max * board->slot_size)
        return 0;
    munmap(map, board->size);
    board->map = NULL;
    return error;
}

static inline void fh_board_close(struct fh_board *board) {
    if (board->map)
        munmap((void *)(uintptr_t)board->map, board->size);
    board->map = NULL;
}

/* How many slots are in use: 0 to count - 1. It only grows. */
static inline long fh_board_count(const struct fh_board *board) {
    uint64_t count = fh_board_word(board, FH_BOARD_COUNT_OFFSET);
    return (long)(count < board->slots_max ? count : board->slots_max);
}

static inline size_t fh_board_offset(const struct fh_board *board, long slot) {
    return FH_BOARD_HEADER_SIZE + (size_t)slot * board->slot_size;
}

/* The topic of a slot, NUL-terminated. */
static inline const char *fh_board_topic(const struct fh_board *board, long slot) {
    return (const char *)board->map + fh_board_offset(board, slot);
}

/* The slot of a topic, or -1: not there yet. Looks at all slots in use, so keep what it says. */
static inline long fh_board_find(const struct fh_board *board, const char *topic) {
    long slot, count = fh_board_count(board);
    for (slot = 0; slot < count; slot++)
        if (strncmp(fh_board_topic(board, slot), topic, FH_BOARD_TOPIC_SIZE) == 0)
            return slot;
    return -1;
}

/* The number of a slot's newest record, from 1; 0: there is none yet. */
static inline uint64_t fh_board_number(const struct fh_board *board, long slot) {
    return fh_board_word(board, fh_board_offset(board, slot) + FH_BOARD_NEWEST_OFFSET);
}

/* Copy the record of a number: 1, or 0 if it is not there (not yet, or not any more). */
static inline int fh_board_record(const struct fh_board *board, long slot, uint64_t number, void *record) {
    size_t offset = fh_board_offset(board, slot) + FH_BOARD_SLOT_HEADER_SIZE +
                    (size_t)(number % board->depth) * FH_BOARD_CELL_SIZE;
    const _Atomic uint64_t *cell = (const _Atomic uint64_t *)(const void *)(board->map + offset);
    uint64_t words[FH_BOARD_RECORD_SIZE / 8];
    int i;
    if (number == 0 || number >> 63 || atomic_load_explicit(cell, memory_order_acquire) != 2 * number)
        return 0;
    for (i = 0; i < FH_BOARD_RECORD_SIZE / 8; i++)
        words[i] = atomic_load_explicit(cell + 1 + i, memory_order_relaxed);
    atomic_thread_fence(memory_order_acquire);
    if (atomic_load_explicit(cell, memory_order_relaxed) != 2 * number)
        return 0;
    memcpy(record, words, sizeof words);
    return 1;
}

/* Copy the newest record: 1, 0 if there is none yet, -EBADMSG if the file is damaged. Tries again only if the
 * writer went on meanwhile, so nobody is ever waited for. */
static inline int fh_board_read(const struct fh_board *board, long slot, void *record) {
    int i;
    for (i = 0; i < FH_BOARD_TRIES_MAX; i++) {
        uint64_t number = fh_board_number(board, slot);
        if (number == 0)
            return 0;
        if (fh_board_record(board, slot, number, record))
            return 1;
    }
    return -EBADMSG;
}

static inline int64_t fh_board_now_mono_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* Whether somebody keeps the records current; if not, take each of them for flagged DOWN. */
static inline int fh_board_is_alive(const struct fh_board *board) {
    int64_t age_ns;
    if (fh_board_word(board, FH_BOARD_CLOSED_OFFSET))
        return 0;
    age_ns = fh_board_now_mono_ns() - (int64_t)fh_board_word(board, FH_BOARD_HEARTBEAT_MONO_NS_OFFSET);
    return -FH_BOARD_AHEAD_NS_MAX <= age_ns && age_ns < FH_BOARD_DEAD_NS;
}

/* Whether the path leads to this file still, and all of it is there; a system call. */
static inline int fh_board_is_current(const struct fh_board *board, const char *path) {
    struct stat status;
    return stat(path, &status) == 0 && status.st_dev == board->device && status.st_ino == board->inode &&
           (size_t)status.st_size >= board->size;
}

static inline void fh_board_pause(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ __volatile__("yield");
#endif
}

/* Look, awake, until the newest number of a slot is another than after: that number; or after, if none came within
 * patience_ns. It takes a processor while it looks. */
static inline uint64_t fh_board_wait(const struct fh_board *board, long slot, uint64_t after, int64_t patience_ns) {
    int64_t deadline = fh_board_now_mono_ns() + patience_ns;
    for (;;) {
        int i;
        for (i = 0; i < 64; i++) {
            uint64_t number = fh_board_number(board, slot);
            if (number != after)
                return number;
            fh_board_pause();
        }
        if (fh_board_now_mono_ns() >= deadline)
            return after;
    }
}

#endif
