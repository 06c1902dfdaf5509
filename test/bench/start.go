package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// readyTimeout bounds the time from start to the first right answer.
const readyTimeout = 15 * time.Second

// env is what all processes of a run share.
type env struct {
	dir      string // temporary
	backend  *backend
	mesh     *mesh
	bins     map[string]string // by peer
	starts   int
	ports    ports
	commands map[string]string // by peer: how it was started first
}

// running is a peer that serves.
type running struct {
	peer  *peer
	kind  string
	at    target // where the load goes
	confs []*conf
	procs []*process // as confs; the entry first
	admin []string   // weft-proxy's admin addresses
	ready time.Duration
	slow  bool // it cannot hold the rate of an open loop
}

// start runs a peer's processes and waits until a request went through them as it has to.
func (e *env) start(p *peer, kind string) (*running, error) {
	upstream := e.backend.h1
	switch {
	case kind == kindTCP:
		upstream = e.backend.tcp
	case upH2(kind):
		upstream = e.backend.h2
	}
	return e.startTo(p, kind, upstream, false)
}

// startTo leads to a port; many tells that there will be thousands of connections.
func (e *env) startTo(p *peer, kind string, upstream int, many bool) (*running, error) {
	if p.program == directName {
		return &running{peer: p, kind: kind, at: target{addr: fmt.Sprintf("%s:%d", loopback, upstream)}}, nil
	}
	ports, err := e.ports.take(2)
	if err != nil {
		return nil, err
	}
	r := &running{peer: p, kind: kind, at: target{addr: fmt.Sprintf("%s:%d", loopback, ports[0])}, confs: plan(kind, ports[0], ports[1], upstream)}
	if kind == kindTLS {
		if r.at.tls, err = e.clientTLS(p, clientAccount, kind); err != nil {
			return nil, err
		}
	}
	for _, c := range r.confs {
		c.Many = many
	}
	begin, err := e.launch(r)
	if err != nil {
		r.stop()
		return nil, fmt.Errorf("%s: %w", p.name, err)
	}
	if err := r.await(kind); err != nil {
		r.stop()
		return nil, fmt.Errorf("%s: %s: %w", p.name, kind, err)
	}
	r.ready = time.Since(begin)
	if hasServerEnd(kind) {
		if err := e.proveMTLS(r); err != nil {
			r.stop()
			return nil, fmt.Errorf("%s: %s: %w", p.name, kind, err)
		}
	}
	return r, nil
}

// plan lists the processes of a kind.
func plan(kind string, entry, mid, upstream int) []*conf {
	client := &conf{Role: "a", Listen: entry, Upstream: mid, Account: clientAccount, Peer: serverAccount}
	server := &conf{Role: "b", Listen: mid, Upstream: upstream, Account: serverAccount, Peer: clientAccount}
	switch {
	case paired(kind):
		return []*conf{client, server}
	case kind == kindTLS:
		server.Listen = entry
		return []*conf{server}
	}
	client.Role, client.Upstream = "one", upstream
	return []*conf{client}
}

// launch prepares all processes of a peer, then starts them.
func (e *env) launch(r *running) (begin time.Time, err error) {
	var ready []prepared
	for _, c := range r.confs {
		p, err := e.prepare(r, c)
		if err != nil {
			return begin, err
		}
		ready = append(ready, p)
	}
	begin = time.Now()
	for _, p := range ready {
		proc, err := startProcess(e.dir, p.name, p.env, p.argv...)
		if err != nil {
			return begin, err
		}
		r.procs = append(r.procs, proc)
	}
	return begin, nil
}

// prepared is a process that can be started.
type prepared struct {
	name      string
	env, argv []string
}

func (e *env) prepare(r *running, c *conf) (out prepared, err error) {
	e.starts++
	out.name = fmt.Sprintf("%s-%s-%s-%d", r.peer.name, r.kind, c.Role, e.starts)
	c.fill(e, r.kind)
	ports, err := e.ports.take(3)
	if err != nil {
		return out, err
	}
	c.Admin, c.spare, c.Workers, c.Bytes = ports[0], [2]int(ports[1:]), r.peer.workers, r.peer.floor
	file := filepath.Join(e.dir, out.name)
	if r.peer.config != "" {
		text, err := render(r.peer.config, c)
		if err != nil {
			return out, err
		}
		file += filepath.Ext(r.peer.config)
		if err := os.WriteFile(file, text, 0o600); err != nil {
			return out, err
		}
	}
	if out.argv, err = r.peer.argv(e, e.bins[r.peer.name], c, file); err != nil {
		return out, err
	}
	if r.peer.env != nil {
		out.env = r.peer.env(c)
	}
	if e.commands[r.peer.name] == "" {
		e.commands[r.peer.name] = c.commandLine(out.argv, out.env)
	}
	if r.peer.weft {
		r.admin = append(r.admin, fmt.Sprintf("%s:%d", loopback, c.Admin))
	}
	return out, nil
}

// await asks until the answer is right. Refused connections and wrong answers are
// normal before a proxy has its configuration.
func (r *running) await(kind string) error {
	deadline := time.Now().Add(readyTimeout)
	for {
		err := r.works(kind)
		if err == nil {
			return nil
		}
		if dead := r.dead(); dead != nil {
			return dead
		}
		if time.Now().After(deadline) {
			var words []error
			for _, p := range r.procs {
				words = append(words, fmt.Errorf("%s wrote: %s", p.name, p.lastWords()))
			}
			return errors.Join(fmt.Errorf("no right answer within %v: %w", readyTimeout, err), errors.Join(words...))
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// works asks for what has to be right before the first round.
func (r *running) works(kind string) error {
	if r.peer.floor {
		return ask(kind, r.at)
	}
	return verify(kind, r.at)
}

// dead tells which process ended by itself.
func (r *running) dead() error {
	for _, p := range r.procs {
		if !p.running() {
			return fmt.Errorf("%s ended: %s", p.name, p.lastWords())
		}
	}
	return nil
}

func (r *running) stop() {
	for _, p := range slices.Backward(r.procs) {
		p.stop()
	}
}

func (r *running) cpuTime() (sum time.Duration) {
	for _, p := range r.procs {
		sum += p.cpuTime()
	}
	return sum
}

func (r *running) memory() (now, peak int64) {
	for _, p := range r.procs {
		n, m := p.memory()
		now, peak = now+n, peak+m
	}
	return now, peak
}
