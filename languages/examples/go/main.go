// Command subscribe prints the stream, and says what is missing from it. It calls libzmq by cgo (Debian: golang-go,
// libzmq3-dev, pkg-config) and needs no other module; with one for ZeroMQ, only main and receive are different.
//
//	go build -o subscribe .
//	./subscribe [ENDPOINT [PREFIX...]]
package main

// #cgo pkg-config: libzmq
// #include <stdlib.h>
// #include <zmq.h>
import "C"

import (
	"fmt"
	"log"
	"os"
	"syscall"
	"unsafe"

	"feedhandler"
)

var topics = map[string]*feedhandler.Follow{} // what is known of each topic's sequence

// printf ends the program if its output was closed, as `| head` does.
func printf(format string, values ...any) {
	if _, err := fmt.Printf(format, values...); err != nil {
		os.Exit(0)
	}
}

func take(message []byte) {
	record, err := feedhandler.Decode(message)
	if err != nil {
		log.Printf("a message of %d bytes is refused: %v", len(message), err)
		return
	}
	h := record.Head()
	topic := h.TopicString()
	follow := topics[topic]
	if follow == nil {
		follow = new(feedhandler.Follow)
		topics[topic] = follow
	}
	continuity := feedhandler.Next
	// A notice is about this connection alone, and a condition has no number of its own.
	if h.Kind != feedhandler.KindNotice && h.Kind != feedhandler.KindCondition {
		continuity = follow.Take(h.Session, h.Sequence)
	}
	switch continuity {
	case feedhandler.Duplicate:
		return // a snapshot of what is known already
	case feedhandler.Gap:
		printf("%s: %d lost before #%d\n", topic, follow.Missing, h.Sequence)
	case feedhandler.NewSession:
		printf("%s: the merger was restarted\n", topic)
	}
	note := ""
	if !h.IsLive() {
		note = " NOT LIVE"
	}
	switch r := record.(type) {
	case *feedhandler.Ticker:
		printf("%s #%d last %g bid %g ask %g%s\n", topic, h.Sequence, r.Last, r.Bid, r.Ask, note)
	case *feedhandler.Document:
		printf("%s #%d %s%s\n", topic, h.Sequence, r.Body, note)
	default:
		printf("%s #%d of kind %d%s\n", topic, h.Sequence, h.Kind, note)
	}
}

// receive hands on the next message, which is libzmq's and borrowed until use returns.
func receive(sub unsafe.Pointer, use func([]byte)) error {
	var message C.zmq_msg_t
	C.zmq_msg_init(&message)
	defer C.zmq_msg_close(&message)
	for {
		if n, err := C.zmq_msg_recv(&message, sub, 0); n >= 0 {
			use(unsafe.Slice((*byte)(C.zmq_msg_data(&message)), int(n)))
			return nil
		} else if err != syscall.EINTR { // Go's own signals interrupt it
			return err
		}
	}
}

func setNumber(sub unsafe.Pointer, option, value C.int) {
	C.zmq_setsockopt(sub, option, unsafe.Pointer(&value), C.size_t(unsafe.Sizeof(value)))
}

func main() {
	endpoint, prefixes := "tcp://127.0.0.1:5555", []string{"ticker."}
	if len(os.Args) > 1 {
		endpoint = os.Args[1]
	}
	if len(os.Args) > 2 {
		prefixes = os.Args[2:]
	}
	sub := C.zmq_socket(C.zmq_ctx_new(), C.ZMQ_SUB)
	setNumber(sub, C.ZMQ_RCVHWM, 100000)      // messages that wait for us before libzmq drops: a gap, which we see
	setNumber(sub, C.ZMQ_HEARTBEAT_IVL, 1000) // ms; a connection that died without a word is made again
	setNumber(sub, C.ZMQ_HEARTBEAT_TIMEOUT, 5000)
	for _, prefix := range prefixes {
		bytes := C.CString(prefix)
		C.zmq_setsockopt(sub, C.ZMQ_SUBSCRIBE, unsafe.Pointer(bytes), C.size_t(len(prefix)))
		C.free(unsafe.Pointer(bytes))
	}
	address := C.CString(endpoint)
	defer C.free(unsafe.Pointer(address))
	if failed, err := C.zmq_connect(sub, address); failed != 0 {
		log.Fatalf("cannot connect: %v", err)
	}
	for {
		err := receive(sub, func(message []byte) {
			for _, record := range feedhandler.Split(message) { // a batch has several
				take(record)
			}
		})
		if err != nil {
			log.Fatalf("cannot receive: %v", err)
		}
	}
}
