package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"sync"
	"time"
)

// handshakes makes a new mTLS connection for each request.
type handshakes struct {
	at target
	n  int
}

// closeRequest ends its connection. With TLS 1.3 only an answer proves that the client's certificate was taken.
var closeRequest = append(bytes.Clone(h1Request[:len(h1Request)-2]), "Connection: close\r\n\r\n"...)

func openHandshakes(n int, curve tls.CurveID) opener {
	return func(at target) (load, error) {
		if at.tls == nil {
			return nil, errors.New("handshakes: the target takes no TLS")
		}
		return &handshakes{at: at.withCurves(curve), n: n}, nil
	}
}

func (l *handshakes) close() {}

func (l *handshakes) run(ctx context.Context, d time.Duration) (sample, error) {
	start := time.Now()
	end := start.Add(d)
	lat := make([][]int64, l.n)
	errs := make([]error, l.n)
	var wg sync.WaitGroup
	for i := range l.n {
		wg.Go(func() {
			for now := time.Now(); now.Before(end) && ctx.Err() == nil; {
				if errs[i] = l.once(); errs[i] != nil {
					return
				}
				then := time.Now()
				lat[i] = append(lat[i], int64(then.Sub(now)))
				now = then
			}
		})
	}
	wg.Wait()
	var all []int64
	for _, v := range lat {
		all = append(all, v...)
	}
	return summary(all, time.Since(start)), errors.Join(append(errs, ctx.Err())...)
}

func (l *handshakes) once() error {
	c, err := dialH1(l.at)
	if err != nil {
		return err
	}
	defer c.c.Close()
	c.c.SetDeadline(time.Now().Add(answerTimeout))
	return c.roundTrip(closeRequest)
}
