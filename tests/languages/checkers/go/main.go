// Command check prints what the package makes of messages and sequences; see check.c.
package main

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"os"

	"feedhandler"
)

var out = bufio.NewWriter(os.Stdout)

func printNumbers(values ...float64) {
	for _, value := range values {
		if math.IsNaN(value) {
			fmt.Fprint(out, "|nan")
		} else {
			fmt.Fprintf(out, "|%016x", math.Float64bits(value))
		}
	}
}

func printRecord(record feedhandler.Record, message []byte) {
	h, live := record.Head(), 0
	if h.IsLive() {
		live = 1
	}
	fmt.Fprintf(out, "ok|%s|%s|%s|%d|%d|%d|%d|%d|%d|%d|%d|%d", h.TopicString(), h.Exchange(), h.Symbol(), h.Version,
		h.Kind, h.Flags, live, h.Session, h.Sequence, h.ExchangeNs, h.RecvNs, h.PublishNs)
	switch r := record.(type) {
	case *feedhandler.Ticker:
		fmt.Fprintf(out, "|%d", r.ExchangeSequence)
		printNumbers(r.Last, r.Bid, r.BidSize, r.Ask, r.AskSize, r.Open24h, r.High24h, r.Low24h, r.BaseVolume24h,
			r.QuoteVolume24h)
	case *feedhandler.Trade:
		fmt.Fprintf(out, "|%d", r.ExchangeSequence)
		printNumbers(r.Price, r.Size)
		id, _, _ := bytes.Cut(r.TradeId[:], []byte{0})
		fmt.Fprintf(out, "|%d|%d|%d|%d|%s", r.Count, r.Side, r.Bits, r.Index, id)
	case *feedhandler.Contract:
		fmt.Fprintf(out, "|%d", r.ExchangeSequence)
		printNumbers(r.Mark, r.Index, r.FundingRate, r.OpenInterest)
		fmt.Fprintf(out, "|%d", r.NextFundingNs)
		printNumbers(r.FundingIntervalH, r.PredictedFundingRate)
	case *feedhandler.Liquidation:
		fmt.Fprintf(out, "|%d", r.ExchangeSequence)
		printNumbers(r.Price, r.Size)
		id, _, _ := bytes.Cut(r.TradeId[:], []byte{0})
		fmt.Fprintf(out, "|%d|%d|%d|%d|%s", r.Count, r.Side, r.Bits, r.Index, id)
	case *feedhandler.Depth:
		fmt.Fprintf(out, "|%d|%d|%d", r.ExchangeSequence, r.BidCount, r.AskCount)
		for _, side := range [][20]feedhandler.Level{r.BidLevels, r.AskLevels} {
			for _, level := range side {
				printNumbers(level.Price, level.Size)
			}
		}
	case *feedhandler.Book:
		fmt.Fprintf(out, "|%d|%d|%d|%d|%d|%d", r.FirstId, r.LastId, r.BidCount, r.AskCount, r.Part, r.Parts)
		for _, level := range feedhandler.BookLevels(message) {
			printNumbers(level.Price, level.Size)
		}
	case *feedhandler.Document:
		fmt.Fprintf(out, "|%s", r.Body)
	case *feedhandler.Unknown:
		fmt.Fprintf(out, "|unknown %x", r.Body)
	}
	fmt.Fprintln(out)
}

func messages(isVerdict bool) {
	input, err := io.ReadAll(os.Stdin)
	if err != nil {
		panic(err)
	}
	for len(input) > 0 {
		size := binary.LittleEndian.Uint32(input)
		message := input[4 : 4+size : 4+size]
		input = input[4+size:]
		records := feedhandler.Split(message)
		if len(message) == 0 {
			records = [][]byte{message}
		}
		for _, each := range records {
			record, err := feedhandler.Decode(each)
			switch {
			case err != nil:
				fmt.Fprintln(out, err)
			case isVerdict:
				fmt.Fprintln(out, "ok")
			default:
				printRecord(record, each)
			}
		}
		fmt.Fprintln(out, ".")
	}
}

func follow() {
	names := map[feedhandler.Continuity]string{feedhandler.First: "first", feedhandler.Next: "next", feedhandler.Gap: "gap",
		feedhandler.NewSession: "new_session", feedhandler.Duplicate: "duplicate"}
	var state feedhandler.Follow
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		var session uint32
		var sequence uint64
		if n, _ := fmt.Sscanf(lines.Text(), "%d %d", &session, &sequence); n != 2 {
			state = feedhandler.Follow{}
			continue
		}
		continuity := state.Take(session, sequence)
		fmt.Fprintln(out, names[continuity], state.Missing, state.Lost, state.Gaps)
	}
}

func main() {
	defer out.Flush()
	if os.Args[1] == "follow" {
		follow()
	} else {
		messages(os.Args[1] == "verdicts")
	}
}
