package main

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"time"
)

// proveMTLS asks the server's end of a peer directly: the client's identity
// gets an answer; plaintext, a client without a certificate, and one with a good
// certificate of another identity do not.
func (e *env) proveMTLS(r *running) error {
	server := r.confs[len(r.confs)-1]
	at := target{addr: fmt.Sprintf("%s:%d", loopback, server.Listen)}
	right, err := e.clientTLS(r.peer, clientAccount, r.kind)
	if err != nil {
		return err
	}
	wrong, err := e.clientTLS(r.peer, strangerAccount, r.kind)
	if err != nil {
		return err
	}
	nobody := right.Clone()
	nobody.Certificates = nil
	for _, c := range []struct {
		who    string
		cfg    *tls.Config
		answer bool
	}{{"the right client", right, true}, {"a client without a certificate", nobody, false}, {"a client with another identity", wrong, false}, {"plaintext", nil, false}} {
		at.tls = c.cfg
		err := ask(r.kind, at)
		if c.answer && err != nil {
			return fmt.Errorf("server end: %s: %w", c.who, err)
		}
		if !c.answer && err == nil {
			return fmt.Errorf("server end: %s gets an answer: this is not mTLS with an identity check", c.who)
		}
		if !c.answer && timedOut(err) {
			return fmt.Errorf("server end: %s gets neither an answer nor a refusal: %w", c.who, err)
		}
	}
	return nil
}

func timedOut(err error) bool {
	var t net.Error
	return errors.As(err, &t) && t.Timeout()
}

// ask sends one request of a kind.
func ask(kind string, at target) error {
	if downH2(kind) {
		return askH2(at)
	}
	c, err := dialH1(at)
	if err != nil {
		return err
	}
	defer c.c.Close()
	c.c.SetDeadline(time.Now().Add(answerTimeout))
	return c.roundTrip(h1Request)
}
