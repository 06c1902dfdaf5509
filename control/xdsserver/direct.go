package xdsserver

import (
	"context"
	"errors"
	"io"
	"runtime"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"weft.mesh/weft/control/grpcstream"
	"weft.mesh/weft/spiffe"
	"weft.mesh/weft/xds"
)

// Accept takes a stream of DeltaAggregatedResources that gRPC does not carry; see grpcstream.Settings. It waits for the stream's turn.
// The stream has no goroutine: what the client says is handled on the connection's, and what there is to tell it by pushes.
func (s *Server) Accept(ctx context.Context, carrier *grpcstream.Stream) (grpcstream.Receiver, error) {
	peer, err := s.set.Authenticate(ctx)
	if err != nil {
		return nil, status.Error(codes.Unauthenticated, err.Error())
	}
	id, err := s.open(peer)
	if err != nil {
		return nil, err
	}
	entered, err := s.admit(ctx)
	if err != nil {
		s.close(id, peer)
		return nil, err
	}
	// One piece of memory: a push to a thousand streams waits for little else.
	x := &struct {
		d    direct
		st   stream
		sess session
	}{}
	d := &x.d
	x.sess.of(true, s.set.Limits, s.hub)
	x.st.id, x.st.srv, x.st.sess, x.st.entered = id, s, &x.sess, entered
	d.st, d.carrier, d.peer, d.gzip, x.st.wake = &x.st, carrier, peer, carrier.Gzip(), d
	d.introduce = time.AfterFunc(s.set.Limits.Introduction, func() {
		if err := d.st.introduced(); err != nil {
			carrier.End(err)
		}
	})
	s.awake(id, d)
	return d, nil
}

// direct is a stream of [Server.Accept].
type direct struct {
	st        *stream
	carrier   *grpcstream.Stream
	peer      spiffe.ID
	gzip      bool
	introduce *time.Timer
	known     bool    // who it is; of Message
	said      request // what the client says; of Message
	waits     bool    // for a push; protected by pushes.mu
}

// Message implements grpcstream.Receiver.
func (d *direct) Message(b []byte) error {
	r := &d.said
	defer r.forget()
	if err := r.read(b, d.st.srv.set.Limits.MaxNames); err != nil {
		return err
	}
	var n *xds.Node
	if !d.known {
		var err error
		if n, err = d.st.srv.identify(d.peer, r.xdsNode); err != nil {
			return err
		}
		d.known = true
	}
	return d.st.proceed(d.send, func(now time.Time) ([]*message, error) {
		d.st.introduce(n, d.peer)
		return d.st.delta(r, now)
	})
}

// Drained implements grpcstream.Receiver.
func (d *direct) Drained() { d.wake() }

func (d *direct) wake() { d.st.srv.pushes.add(d) }

func (d *direct) look(now time.Time) bool { return d.st.look(now) }

// Closed implements grpcstream.Receiver.
func (d *direct) Closed() {
	d.introduce.Stop()
	d.st.end()
	d.st.entered()
	d.st.srv.close(d.st.id, d.peer)
}

// push tells the client what is new. One that has not taken what it was told before is pushed to when it has.
func (d *direct) push() {
	if d.carrier.Full() {
		return
	}
	if err := d.st.proceed(d.send, nil); err != nil && !errors.Is(err, io.EOF) {
		d.carrier.End(err)
	}
}

func (d *direct) send(m *message) (int, error) {
	if m.wire != nil {
		d.carrier.Send(m.wire.framed(m, d.gzip))
		return m.wire.size(m), nil
	}
	b := encodeDelta(grpcstream.AppendPrefix(nil), m)
	grpcstream.SetPrefix(b, false)
	d.carrier.Send(b)
	return m.size(), nil
}

// pushes are streams that there is something to tell. As many goroutines as there are processors tell them, one
// stream after the other, and end when there is nothing more: a thousand streams need no thousand wakes. Safe for concurrent use.
type pushes struct {
	mu      sync.Mutex // protects the following
	queue   []*direct  // each once…
	head    int        // …from here on
	running int
}

// worth is how many streams must wait for one more goroutine.
const worth = 32

func (p *pushes) add(d *direct) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if d.waits {
		return
	}
	d.waits = true
	p.queue = append(p.queue, d)
	if p.running < runtime.GOMAXPROCS(0) && len(p.queue)-p.head > p.running*worth {
		p.running++
		go p.run()
	}
}

func (p *pushes) run() {
	for d := p.take(); d != nil; d = p.take() {
		d.push()
	}
}

// take is the next stream; nil: there is none, and whoever asked has ended.
func (p *pushes) take() *direct {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.head == len(p.queue) {
		p.queue, p.head = p.queue[:0], 0
		p.running--
		return nil
	}
	d := p.queue[p.head]
	p.queue[p.head] = nil
	p.head++
	d.waits = false // what comes from here on is another push
	return d
}
