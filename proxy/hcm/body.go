package hcm

import (
	"io"
	"sync"
	"time"

	"weft.mesh/weft/proxy/filter"
	"weft.mesh/weft/proxy/stream"
)

// Bounds of request bodies that are kept.
const (
	maxReplay   = 64 << 10 // to be sent again by retries and mirrors
	maxCollect  = 16 << 10 // of a known length: read before the upstream is asked, which needs no second goroutine
	maxKeptBody = 16 << 10 // memory that a pooled exchange keeps
)

// body is the request body on its way to upstreams: nothing, whole in memory, or pumped.
type body struct {
	whole []byte // if all
	all   bool   // there is no more to come
	none  bool
	mem   []byte // backs whole when it was collected
	pump  *pump
}

// prepareBody finds out how the body will be sent. It returns false when the client has gone meanwhile.
func (x *exchange) prepareBody() bool {
	b := &x.up.body
	if x.h.expect {
		x.req.Fields.Del("expect") // whoever reads the body has answered it with 100 (Continue)
	}
	switch {
	case x.req.Upgrade == nil && !x.srv.HasBody():
		b.none, b.all = true, true
	case x.req.Upgrade != nil:
	default:
		if p, ok := x.srv.BodyBuffered(); ok {
			b.whole, b.all = p, true
			x.info.BytesIn = uint64(len(p))
		} else if n := x.length(); n > 0 && n <= maxCollect {
			if !x.collect() {
				return false
			}
		}
	}
	if b.all && len(b.whole) > 0 {
		x.sawRequest(b.whole)
	}
	switch {
	case !b.all:
		b.pump = newPump(x)
	case x.watch.progress.Load() == x.watch.begin: // nothing was waited for since the start
		x.requestComplete(x.info.Start)
	default:
		x.requestComplete(time.Now())
	}
	return true
}

// length is how much body the client has announced.
func (x *exchange) length() int64 {
	if x.transcoded {
		return x.announced
	}
	return x.req.ContentLength
}

// sawRequest shows a piece of the request body to the filters that watch.
func (x *exchange) sawRequest(p []byte) {
	for _, w := range x.watches {
		w.RequestBody(p)
	}
}

func (x *exchange) collect() bool {
	b := &x.up.body
	b.mem = b.mem[:0]
	x.watch.collecting.Store(true) // before the first look at whether it was cut
	for {
		if x.gone() {
			x.watch.collecting.Store(false)
			return false
		}
		p, err := x.srv.ReadBody()
		if err == io.EOF {
			break
		}
		if err != nil {
			x.downstreamError(err)
			x.watch.collecting.Store(false)
			return false
		}
		b.mem = append(b.mem, p...)
		x.watch.progress.Add(1)
	}
	x.watch.collecting.Store(false)
	b.whole, b.all = b.mem, true
	x.info.BytesIn = uint64(len(b.mem))
	return true
}

// downstreamError ends an exchange whose request did not arrive whole.
func (x *exchange) downstreamError(err error) {
	if why := x.cutReason(); why == cutIdle || why == cutDuration {
		x.gone()
		return
	}
	e, ok := stream.AsError(err)
	if ok && e.Status > 0 && !x.headSent {
		if x.req.Proto != stream.HTTP2 { // where the next request begins is in doubt
			x.srv.CloseAfter()
		}
		x.reply(&filter.Reply{Status: e.Status, Body: stream.Bytes(e.Text), Details: e.Details, Flags: e.Flag})
		return
	}
	x.clientGone()
	if ok && e.Flag != 0 && e.Details != "" {
		x.info.Details = e.Details
	}
}

// send writes head and body to a client, as far as the body is there.
func (x *exchange) send(c stream.Client) error {
	b := &x.up.body
	switch {
	case b.none:
		return c.WriteHead(x.req, true)
	case b.all:
		if err := c.WriteHead(x.req, false); err != nil {
			return err
		}
		return c.WriteBody(b.whole, true)
	}
	if err := c.WriteHead(x.req, false); err != nil {
		return err
	}
	if err := c.Flush(); err != nil {
		return err
	}
	return b.pump.attach(c)
}

// replayable tells whether the body can be sent to another upstream.
func (b *body) replayable() bool { return b.all || b.pump == nil || b.pump.replayable() }

// detach takes the body away from an upstream that is to be closed.
func (b *body) detach(x *exchange) {
	if b.pump == nil {
		return
	}
	select {
	case <-b.pump.done:
	default:
		x.mu.Lock()
		if x.client != nil {
			x.client.SetDeadline(past) // a blocked write ends
		}
		x.mu.Unlock()
	}
	b.pump.detach()
}

// finish waits for the upload to end. It may not go on after the exchange.
func (b *body) finish(x *exchange) {
	if b.pump == nil {
		return
	}
	b.detach(x)
	b.pump.finish()
	x.info.BytesIn = b.pump.bytes
}

// pump uploads a body on a goroutine of its own, and keeps its beginning so that it can be sent again.
type pump struct {
	x    *exchange
	done chan struct{}

	mu sync.Mutex // held while writing to target
	// mu protects the following.
	started bool
	target  stream.Client // nil: nobody takes the body now
	kept    []byte
	keep    bool // kept is all of what was read
	ended   bool // the body was read to its end
	err     error
	bytes   uint64
	over    bool // nobody will want the rest
	trail   *stream.Fields
}

func newPump(x *exchange) *pump {
	return &pump{x: x, done: make(chan struct{}), keep: x.req.Upgrade == nil && x.wantsReplay()}
}

// wantsReplay tells whether anyone could send the body a second time.
func (x *exchange) wantsReplay() bool {
	f := x.up.forward
	return f.Retry != nil && f.Retry.Attempts > 0 || len(f.Mirrors) > 0
}

func (p *pump) replayable() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err == nil && (p.keep || !p.started)
}

// attach gives the body to c: what was read before, then what comes.
func (p *pump) attach(c stream.Client) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.started {
		p.started = true
		p.target = c
		go p.run()
		return nil
	}
	if len(p.kept) > 0 {
		if err := c.WriteBody(p.kept, false); err != nil {
			return err
		}
	}
	if p.ended {
		return p.endTo(c)
	}
	p.target = c
	return c.Flush()
}

// failure is why the body did not arrive whole; nil if it did, or may still.
func (p *pump) failure() error {
	if p == nil {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err
}

func (p *pump) detach() {
	p.mu.Lock()
	p.target = nil
	p.mu.Unlock()
}

func (p *pump) run() {
	defer close(p.done)
	for {
		b, err := p.x.srv.ReadBody()
		if !p.piece(b, err) {
			return
		}
	}
}

// piece deals with one result of ReadBody and tells whether to go on.
func (p *pump) piece(b []byte, err error) bool {
	x := p.x
	x.watch.progress.Add(1)
	p.mu.Lock()
	defer p.mu.Unlock()
	if err != nil {
		p.end(err)
		return false
	}
	p.bytes += uint64(len(b))
	x.sawRequest(b)
	if p.keep {
		if p.keep = len(p.kept)+len(b) <= maxReplay; p.keep {
			p.kept = append(p.kept, b...)
		}
	}
	if p.target != nil {
		if p.target.WriteBody(b, false) != nil || p.target.Flush() != nil {
			p.target = nil // whoever reads the response learns why
		}
	}
	return !p.over || p.bytes < maxReplay
}

// end is called with the error that ended the body.
func (p *pump) end(err error) {
	x := p.x
	if err != io.EOF {
		p.err = err
		if !p.over {
			x.cutNow(cutGone) // the request will never be whole
		}
		return
	}
	p.ended = true
	p.trail = x.srv.RequestTrailers()
	x.requestComplete(time.Now())
	x.mirrorPumped(p.kept, p.keep)
	if p.target != nil {
		_ = p.endTo(p.target) // whoever reads the response learns of an error
	}
}

func (p *pump) endTo(c stream.Client) error {
	if p.trail != nil && p.trail.Len() > 0 {
		if err := c.WriteTrailers(p.trail); err != nil {
			return err
		}
	} else if err := c.WriteBody(nil, true); err != nil {
		return err
	}
	return c.Flush()
}

// goodbye is how long a client may go on sending after it has its response.
const goodbye = time.Second

// finish ends the upload. A client that goes on sending after the response is
// read for a little while, so that it sees the response, and then cut off.
func (p *pump) finish() {
	p.mu.Lock()
	p.over = true
	started := p.started
	p.mu.Unlock()
	if !started {
		return
	}
	select {
	case <-p.done:
		return
	default:
	}
	t := time.NewTimer(goodbye)
	defer t.Stop()
	select {
	case <-p.done:
	case <-t.C:
		p.x.srv.Abort()
		<-p.done
	}
}
