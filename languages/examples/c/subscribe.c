/*
 * Prints the stream, and says what is missing from it. Needs libzmq (Debian: libzmq3-dev).
 *
 *     cc -std=c11 -O2 -I ../../c -o subscribe subscribe.c -lzmq
 *     ./subscribe [ENDPOINT [PREFIX...]]
 */
#define _XOPEN_SOURCE 700
#include <errno.h>
#include <inttypes.h>
#include <search.h>
#include <stdio.h>
#include <stdlib.h>
#include <zmq.h>

#include "feedhandler.h"

/* What is known of one topic's sequence; kept in a tree by topic. */
struct topic {
    char name[FH_TOPIC_SIZE];
    fh_follow follow;
};

static int compare(const void *a, const void *b) {
    return strcmp(((const struct topic *)a)->name, ((const struct topic *)b)->name);
}

static fh_follow *follow_of(const char *name) {
    static void *topics;
    struct topic *topic = calloc(1, sizeof *topic);
    if (!topic) abort();
    strcpy(topic->name, name);
    struct topic **found = tsearch(topic, &topics, compare);
    if (!found) abort();
    if (*found != topic) free(topic); /* there is one already */
    return &(*found)->follow;
}

static void take(const unsigned char *message, size_t size) {
    fh_record record;
    fh_error error = fh_decode(message, size, &record);
    if (error) {
        fprintf(stderr, "a message of %zu bytes is refused: %s\n", size, fh_error_name(error));
        return;
    }
    fh_header header = record.header;
    fh_follow *follow = follow_of(header.topic);
    /* A notice is about this connection alone, and a condition has no number of its own. */
    bool has_number = header.kind != FH_KIND_NOTICE && header.kind != FH_KIND_CONDITION;
    switch (has_number ? fh_follow_take(follow, header.session, header.sequence) : FH_NEXT) {
        case FH_DUPLICATE: return; /* a snapshot of what is known already */
        case FH_GAP:
            printf("%s: %" PRIu64 " lost before #%" PRIu64 "\n", header.topic, follow->missing, header.sequence);
            break;
        case FH_NEW_SESSION: printf("%s: the merger was restarted\n", header.topic); break;
        case FH_FIRST:
        case FH_NEXT: break;
    }
    printf("%s #%" PRIu64, header.topic, header.sequence);
    if (header.kind == FH_KIND_TICKER)
        printf(" last %.10g bid %.10g ask %.10g", record.ticker.last, record.ticker.bid, record.ticker.ask);
    else if (fh_is_document(header.kind))
        printf(" %.*s", (int)(size - FH_HEADER_SIZE), (const char *)message + FH_HEADER_SIZE);
    puts(fh_is_live(&header) ? "" : " NOT LIVE");
}

int main(int count, char **arguments) {
    void *context = zmq_ctx_new(), *sub = zmq_socket(context, ZMQ_SUB);
    int queue = 100000;                   /* messages that wait for us before libzmq drops: a gap, which we see */
    int interval_ms = 1000, patience_ms = 5000; /* a connection that died without a word is made again */
    zmq_setsockopt(sub, ZMQ_RCVHWM, &queue, sizeof queue);
    zmq_setsockopt(sub, ZMQ_HEARTBEAT_IVL, &interval_ms, sizeof interval_ms);
    zmq_setsockopt(sub, ZMQ_HEARTBEAT_TIMEOUT, &patience_ms, sizeof patience_ms);
    if (count < 3) zmq_setsockopt(sub, ZMQ_SUBSCRIBE, "ticker.", 7);
    for (int i = 2; i < count; i++) zmq_setsockopt(sub, ZMQ_SUBSCRIBE, arguments[i], strlen(arguments[i]));
    if (zmq_connect(sub, count > 1 ? arguments[1] : "tcp://127.0.0.1:5555")) {
        fprintf(stderr, "cannot connect: %s\n", zmq_strerror(zmq_errno()));
        return 1;
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    for (zmq_msg_t message; zmq_msg_init(&message) == 0; zmq_msg_close(&message)) {
        if (zmq_msg_recv(&message, sub, 0) < 0) {
            if (zmq_errno() == EINTR) continue;
            fprintf(stderr, "cannot receive: %s\n", zmq_strerror(zmq_errno()));
            return 1;
        }
        const unsigned char *bytes = zmq_msg_data(&message);
        size_t size = zmq_msg_size(&message), step;
        for (size_t at = 0; at < size; at += step) { /* a batch has several records */
            step = fh_record_size(bytes + at, size - at);
            take(bytes + at, step);
        }
        if (ferror(stdout)) return 0; /* it was closed, as `| head` does, and SIGPIPE is ignored */
    }
}
