package soak

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"time"
)

// fault is what an operation asks its upstream (or its client) to do wrong.
type fault string

const (
	noFault   fault = ""
	resetHead fault = "reset-head" // the upstream resets before it answers
	midHead   fault = "mid-head"   // in the middle of the head
	midBody   fault = "mid-body"   // in the middle of the body
	cutBody   fault = "cut-body"   // it closes in the middle of the body
	slow      fault = "slow"       // it dribbles
	early     fault = "early"      // it answers before it has read the request, and reads it afterwards
	abort     fault = "abort"      // the client goes away in the middle
)

// mustFail tells whether the operation cannot succeed.
func (f fault) mustFail() bool {
	return f == resetHead || f == midHead || f == midBody || f == cutBody
}

// op is one operation.
type op struct {
	id       string // unique
	method   string
	via      int  // which proxy: gateway, pair
	flaky    bool // over upstreams that go away
	h2       bool // the upstream speaks HTTP/2
	size     int  // of the response's body
	send     int  // of the request's body; -1: none
	chunked  bool // the request
	flush    bool // the response comes in pieces, without a length
	expect   bool // 100-continue
	fault    fault
	pipeline int           // requests sent at once
	to       string        // where it goes, for people
	lasts    time.Duration // gRPC streams and tunnels: how long their pauses are together; 0: not long
}

const (
	viaGateway = iota
	viaPair
)

func (o op) path() string {
	lane, up := "calm", "h1"
	if o.flaky {
		lane = "flaky"
	}
	if o.h2 {
		up = "h2"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "/%s/%s/?id=%s&n=%d", lane, up, o.id, o.size)
	if o.flush {
		b.WriteString("&flush=1")
	}
	if o.fault != noFault && o.fault != abort {
		fmt.Fprintf(&b, "&fault=%s", o.fault)
	}
	return b.String()
}

// sent is the request's body.
func (o op) sent() []byte {
	if o.send < 0 {
		return nil
	}
	return random(o.id, o.send)
}

func (o op) want() want {
	w := want{id: o.id, size: o.size, sum: sumOf(o.sent())}
	if o.fault == early {
		w.sum = "early"
	}
	return w
}

// size is between 0 and max bytes, small ones more often.
func size(r *rand.Rand, max int) int {
	if r.IntN(20) == 0 {
		return 0
	}
	return int(math.Exp(r.Float64() * math.Log(float64(max))))
}

// pause is how long a gRPC stream or a tunnel waits after each of its steps: none, or once or twice a short time, unless it is to last.
func (o op) pause(r *rand.Rand, steps int, short time.Duration) time.Duration {
	if o.lasts > 0 {
		return o.lasts / time.Duration(steps)
	}
	return time.Duration(r.IntN(3)) * short
}

// newOp chooses an HTTP operation.
func newOp(r *rand.Rand, id string) op {
	o := op{id: id, method: "GET", via: r.IntN(2), flaky: r.IntN(4) == 0, h2: r.IntN(2) == 0, size: size(r, 1<<20), send: -1, flush: r.IntN(3) == 0}
	switch r.IntN(10) {
	case 0:
		o.method = "HEAD"
	case 1, 2, 3:
		o.method, o.send, o.chunked = "POST", size(r, 1<<20), r.IntN(2) == 0
		o.expect = r.IntN(4) == 0
	case 4:
		o.pipeline, o.size = 2+r.IntN(6), o.size%20000
	}
	if r.IntN(12) == 0 {
		faults := []fault{resetHead, midHead, midBody, cutBody, slow, early, abort}
		o.fault = faults[r.IntN(len(faults))]
		o.pipeline = 0
		if o.method == "HEAD" {
			o.method = "GET"
		}
		switch {
		case o.fault == midBody || o.fault == cutBody || o.fault == abort:
			o.size = max(o.size, 64<<10)
		case o.fault == slow:
			o.size %= 20000
		case o.fault == early:
			o.method, o.send, o.expect = "POST", max(o.send, 30000), false
		case o.fault == midHead && o.h2:
			o.fault = resetHead
		}
		if o.fault == cutBody && o.h2 {
			o.fault = midBody
		}
	}
	return o
}
