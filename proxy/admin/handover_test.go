package admin

import (
	"context"
	"io"
	"net"
	"net/http"
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
