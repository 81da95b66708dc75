/*
 * Keeps one book, and prints its best levels whenever it changes. Needs libzmq (Debian: libzmq3-dev).
 *
 *     cc -std=c11 -O2 -I ../../c -o book book.c -lzmq -lm
 *     ./book TOPIC [ENDPOINT [RELAY]]          such as book.binance.BTC/USDT
 *
 * It subscribes first and asks the relay then, when the first heartbeat tells that the subscription is in force. What
 * comes while the answer is awaited is applied after it: what is older than the snapshot changes nothing.
 */
#define _XOPEN_SOURCE 700
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <time.h>
#include <zmq.h>

#include "book.h"

enum { PATIENCE_MS = 1000, WAITING_MAX = 10000 };

static fh_kept_book book;
static zmq_msg_t waiting[WAITING_MAX]; /* that came while an answer was awaited */
static size_t waiting_count;
static bool is_subscribed, is_asking, is_uncertain;
static int64_t asked_ms;

static int64_t now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * (int64_t)1000 + now.tv_nsec / 1000000;
}

static void print_book(const char *topic) {
    static uint64_t printed = UINT64_MAX;
    static const char *reason;
    if (!book.is_valid) {
        if (reason != book.reason) printf("%s is not valid: %s\n", topic, book.reason);
    } else if (book.sequence != printed || reason != book.reason) {
        printf("%s #%" PRIu64 " id %" PRIu64 " bids %zu asks %zu", topic, book.sequence, book.last_id, book.bids.count,
               book.asks.count);
        if (book.bids.count) printf(" bid %.10g x %.10g", book.bids.levels[0].price, book.bids.levels[0].size);
        if (book.asks.count) printf(" ask %.10g x %.10g", book.asks.levels[0].price, book.asks.levels[0].size);
        putchar('\n');
        printed = book.sequence;
    }
    reason = book.reason;
}

static void apply_waiting(void) {
    is_asking = false;
    for (size_t i = 0; i < waiting_count; i++) {
        fh_kept_book_apply(&book, zmq_msg_data(&waiting[i]), zmq_msg_size(&waiting[i]));
        zmq_msg_close(&waiting[i]);
    }
    waiting_count = 0;
}

static void take(zmq_msg_t *message) {
    const unsigned char *bytes = zmq_msg_data(message);
    size_t size = zmq_msg_size(message);
    fh_record record;
    if (fh_decode(bytes, size, &record) == FH_OK && record.header.kind == FH_KIND_HEARTBEAT) {
        /* Flagged, it is the first of a connection: what was sent before that was missed. */
        if (record.header.flags & FH_FLAG_SNAPSHOT) {
            is_subscribed = is_uncertain = true;
            fh_kept_book_suspend(&book);
        }
        return;
    }
    fh_kept_book_apply(&book, bytes, size);
    if (!is_asking && !fh_kept_book_lacks_snapshot(&book)) return;
    if (waiting_count == WAITING_MAX) apply_waiting();
    zmq_msg_init(&waiting[waiting_count]);
    zmq_msg_copy(&waiting[waiting_count++], message);
}

/* The relay's answer: a head, the records, and documents, for which nobody has asked. */
static void take_answer(void *relay) {
    int more = 1;
    for (int frame = 0; more; frame++) {
        zmq_msg_t part;
        zmq_msg_init(&part);
        if (zmq_msg_recv(&part, relay, 0) < 0) return;
        more = zmq_msg_more(&part);
        const unsigned char *bytes = zmq_msg_data(&part);
        size_t size = zmq_msg_size(&part), step;
        for (size_t at = 0; frame == 1 && at < size; at += step) {
            fh_record record;
            step = fh_record_size(bytes + at, size - at);
            /* A condition here says what the relay has, and nothing about this book. */
            if (fh_decode(bytes + at, step, &record) == FH_OK && record.header.kind == FH_KIND_BOOK)
                fh_kept_book_apply(&book, bytes + at, step);
        }
        zmq_msg_close(&part);
    }
    is_uncertain = false;
    apply_waiting();
}

static void ask(void *relay, const char *topic) {
    char request[2 * FH_TOPIC_SIZE];
    int size = snprintf(request, sizeof request, "{\"topics\":[\"%s\\u0000\"]}", topic); /* exactly this topic */
    if (zmq_send(relay, request, (size_t)size, ZMQ_DONTWAIT) < 0) return;
    is_asking = true;
    asked_ms = now_ms();
}

int main(int count, char **arguments) {
    if (count < 2 || strlen(arguments[1]) >= FH_TOPIC_SIZE) {
        fprintf(stderr, "usage: %s TOPIC [ENDPOINT [RELAY]]\n", arguments[0]);
        return 2;
    }
    const char *topic = arguments[1];
    void *context = zmq_ctx_new(), *sub = zmq_socket(context, ZMQ_SUB), *relay = zmq_socket(context, ZMQ_DEALER);
    int queue = 100000, interval_ms = 1000, patience_ms = 5000;
    zmq_setsockopt(sub, ZMQ_RCVHWM, &queue, sizeof queue);
    zmq_setsockopt(sub, ZMQ_HEARTBEAT_IVL, &interval_ms, sizeof interval_ms);
    zmq_setsockopt(sub, ZMQ_HEARTBEAT_TIMEOUT, &patience_ms, sizeof patience_ms);
    zmq_setsockopt(sub, ZMQ_SUBSCRIBE, topic, strlen(topic) + 1); /* with its NUL: exactly this topic */
    zmq_setsockopt(sub, ZMQ_SUBSCRIBE, "heartbeat.", 10);         /* the last one */
    if (zmq_connect(sub, count > 2 ? arguments[2] : "tcp://127.0.0.1:5555") ||
        zmq_connect(relay, count > 3 ? arguments[3] : "tcp://127.0.0.1:5556")) {
        fprintf(stderr, "cannot connect: %s\n", zmq_strerror(zmq_errno()));
        return 1;
    }
    fh_kept_book_init(&book);
    setvbuf(stdout, NULL, _IOLBF, 0);
    while (!ferror(stdout)) {
        if (is_asking && now_ms() - asked_ms > PATIENCE_MS) apply_waiting();
        /* One that had no book is not asked again at once. */
        bool is_lacking = is_uncertain || fh_kept_book_lacks_snapshot(&book);
        if (!is_asking && is_subscribed && is_lacking && now_ms() - asked_ms > PATIENCE_MS) ask(relay, topic);
        zmq_pollitem_t items[] = {{sub, 0, ZMQ_POLLIN, 0}, {relay, 0, ZMQ_POLLIN, 0}};
        if (zmq_poll(items, 2, 100) < 0 && zmq_errno() != EINTR) return 1;
        if (items[0].revents) {
            zmq_msg_t message;
            zmq_msg_init(&message);
            if (zmq_msg_recv(&message, sub, 0) >= 0) take(&message);
            zmq_msg_close(&message);
        }
        if (items[1].revents) take_answer(relay);
        print_book(topic);
    }
    return 0;
}
