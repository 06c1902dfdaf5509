package admin

import (
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

func TestHandOverStopsAcceptingAndFinishesWhatWasAccepted(t *testing.T) {
	inside, finish := make(chan struct{}), make(chan struct{})
	s, err := New(Settings{Ready: "127.0.0.1:0", Healthy: func() (bool, string) {
		close(inside)
		<-finish
		return true, ""
	}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	addr := s.Addrs()[0].String()
	answer := make(chan error, 1)
	go func() {
		resp, err := http.Get("http://" + addr + "/healthz/ready")
		if err == nil {
			defer resp.Body.Close()
			_, err = io.ReadAll(resp.Body)
		}
		answer <- err
	}()
	<-inside
	s.HandOver()
	if c, err := net.Dial("tcp", addr); err == nil {
		c.Close()
		t.Error("accepts after HandOver")
	}
	cancel()
	time.Sleep(shutdownTime + 200*time.Millisecond) // longer than an ordinary end would wait
	close(finish)
	if err := <-answer; err != nil {
		t.Errorf("a request that was accepted before: %v", err)
	}
	if err := <-done; err != nil {
		t.Errorf("Run = %v", err)
	}
}

func TestARequestThatComesAfterHandOverOnAConnectionFromBeforeIsAnswered(t *testing.T) {
	s, err := New(Settings{Ready: "127.0.0.1:0", Healthy: func() (bool, string) { return true, "" }})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	c, err := net.Dial("tcp", s.Addrs()[0].String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for end := time.Now().Add(10 * time.Second); s.conns.Load() == 0 && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	s.HandOver()
	cancel()
	time.Sleep(100 * time.Millisecond) // as much as the end has to begin
	if _, err := io.WriteString(c, "GET /healthz/ready HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	b, err := io.ReadAll(c) // and the connection is closed after it
	if err != nil || !strings.HasPrefix(string(b), "HTTP/1.1 200 ") {
		t.Errorf("%q, %v", b, err)
	}
	if err := <-done; err != nil {
		t.Errorf("Run = %v", err)
	}
}
