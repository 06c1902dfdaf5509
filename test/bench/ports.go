package main

import (
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
)

// ports finds ports for proxies to listen at. They are below the range that
// outgoing connections get theirs from, which would take one between its choice and its use.
type ports struct {
	mu    sync.Mutex // protects the following
	given map[int]bool
}

const (
	firstPort = 18000
	lastPort  = 32000
)

// take returns n ports that nothing listens at, none of them twice in a run.
func (p *ports) take(n int) ([]int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.given == nil {
		p.given = map[int]bool{}
	}
	var out []int
	for try := 0; len(out) < n; try++ {
		if try > 1000 {
			return nil, fmt.Errorf("no %d free ports from %d to %d on %s", n, firstPort, lastPort, loopback)
		}
		port := firstPort + rand.IntN(lastPort-firstPort)
		if p.given[port] {
			continue
		}
		l, err := net.Listen("tcp", fmt.Sprintf("%s:%d", loopback, port))
		if err != nil {
			continue
		}
		l.Close()
		p.given[port] = true
		out = append(out, port)
	}
	return out, nil
}
