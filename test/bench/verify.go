package main

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"
)

// mustAdd are fields that every proxy has to add, so that all do the same work.
var mustAdd = map[string][]string{
	kindH1:   {"x-request-id", "x-forwarded-proto", "traceparent", "x-envoy-attempt-count"},
	kindPair: {"x-request-id", "x-forwarded-proto", "traceparent", "x-envoy-attempt-count", "x-forwarded-client-cert"},
}

// verify sends requests through a proxy and checks what arrives and what comes back.
func verify(kind, addr string) error {
	switch kind {
	case kindH2:
		return verifyH2(addr)
	case kindTCP:
		return verifyTCP(addr)
	}
	c, err := dialH1(addr)
	if err != nil {
		return err
	}
	defer c.c.Close()
	c.c.SetDeadline(time.Now().Add(answerTimeout))
	if _, err := c.c.Write(h1Get(headPath)); err != nil {
		return err
	}
	head, err := c.read()
	if err != nil {
		return err
	}
	have := map[string]bool{}
	for line := range bytes.Lines(head) {
		name, value, _ := bytes.Cut(line, []byte{':'})
		have[strings.ToLower(string(name))] = len(bytes.TrimSpace(value)) > 0
	}
	for _, f := range mustAdd[kind] {
		if !have[f] {
			return fmt.Errorf("the proxy did not add %s to the request:\n%s", f, head)
		}
	}
	return c.roundTrip(h1Request)
}

func verifyH2(addr string) error {
	l, err := openH2(1, 1, 0)(addr)
	if err != nil {
		return err
	}
	h := l.(*h2Load)
	defer h.close()
	h.conns[0].c.SetDeadline(time.Now().Add(answerTimeout))
	h.end, h.left, h.idle = time.Now(), 1, make(chan struct{})
	if err := h.conns[0].send(time.Now()); err != nil {
		return err
	}
	select {
	case <-h.idle:
		return nil
	case err := <-h.fail:
		return err
	}
}

func verifyTCP(addr string) error {
	c, err := net.DialTimeout("tcp", addr, 5*time.Second)
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(answerTimeout))
	if _, err := c.Write([]byte{tcpEcho}); err != nil {
		return err
	}
	buf := bytes.Clone(fill(208))
	if _, err := ping(c, buf); err != nil {
		return err
	}
	if !bytes.Equal(buf, fill(208)) {
		return errors.New("the echo differs")
	}
	return nil
}
