package cni

import (
	"bytes"
	"context"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"
)

func TestMessagesAreBounded(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	l, err := Listen(socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- Serve(ctx, l, func(context.Context, Pod) Answer {
			t.Error("a question that is too long was answered")
			return Answer{}
		})
	}()
	c, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	go c.Write(append(bytes.Repeat([]byte("x"), maxMessage+1), '\n')) // the server may close before it is all there
	b, _ := io.ReadAll(c)
	if !strings.Contains(string(b), "more than 1048576 bytes") {
		t.Errorf("answer: %q", b)
	}
	c.Close()
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func FuzzReadLine(f *testing.F) {
	f.Add([]byte("{\"namespace\":\"shop\"}\n"))
	f.Add([]byte("{"))
	f.Fuzz(func(t *testing.T, b []byte) {
		var p Pod
		if err := readLine(bytes.NewReader(b), &p); err == nil && !bytes.Contains(b, []byte("\n")) {
			t.Errorf("%q was taken for a whole message", b)
		}
	})
}
