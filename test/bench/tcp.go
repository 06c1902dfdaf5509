package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

const (
	pingSize  = 200
	pingConns = 8
	bulkConns = 4
	// First byte of a TCP connection: what the backend shall do.
	tcpEcho = 'e'
	tcpSend = 's'
)

// tcpLoad runs one function on each connection until the time is over.
type tcpLoad struct {
	conns []net.Conn
	step  func(c net.Conn, buf []byte) (n int, err error) // n: bytes that count
	round bool                                            // each step is a request with a latency
}

func openTCP(n int, mode byte, round bool, step func(net.Conn, []byte) (int, error)) opener {
	return func(at target) (load, error) {
		l := &tcpLoad{step: step, round: round}
		for range n {
			c, err := at.dial()
			if err == nil {
				l.conns = append(l.conns, c)
				_, err = c.Write([]byte{mode})
			}
			if err != nil {
				l.close()
				return nil, err
			}
		}
		return l, nil
	}
}

// ping sends a message and waits for its echo.
func ping(c net.Conn, buf []byte) (int, error) {
	msg := buf[:pingSize]
	if _, err := c.Write(msg); err != nil {
		return 0, err
	}
	return io.ReadFull(c, msg)
}

func receive(c net.Conn, buf []byte) (int, error) { return c.Read(buf) }

func (l *tcpLoad) run(ctx context.Context, d time.Duration) (sample, error) {
	start := time.Now()
	end := start.Add(d)
	var (
		wg    sync.WaitGroup
		mu    sync.Mutex
		lat   []int64
		bytes int64
		errs  []error
	)
	for _, c := range l.conns {
		c.SetDeadline(end.Add(answerTimeout))
		wg.Go(func() {
			own, sum, err := l.loop(ctx, c, end)
			mu.Lock()
			defer mu.Unlock()
			lat, bytes = append(lat, own...), bytes+sum
			errs = append(errs, err)
		})
	}
	wg.Wait()
	s := summary(lat, time.Since(start))
	s.Bytes = bytes
	if err := errors.Join(errs...); err != nil {
		return s, fmt.Errorf("tcp: %w", err)
	}
	return s, ctx.Err()
}

func (l *tcpLoad) loop(ctx context.Context, c net.Conn, end time.Time) (lat []int64, sum int64, err error) {
	buf := make([]byte, 256<<10)
	for now := time.Now(); now.Before(end) && ctx.Err() == nil; {
		n, err := l.step(c, buf)
		if err != nil {
			return lat, sum, err
		}
		sum += int64(n)
		then := time.Now()
		if l.round {
			lat = append(lat, int64(then.Sub(now)))
		}
		now = then
	}
	return lat, sum, nil
}

func (l *tcpLoad) close() {
	for _, c := range l.conns {
		c.Close()
	}
}
