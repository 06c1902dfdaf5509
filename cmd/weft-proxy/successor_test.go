package main

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestASuccessorGetsOurArgumentsWithoutDescriptors(t *testing.T) {
	for _, tc := range []struct{ args, want string }{
		{"sidecar --id a --label x=y", "sidecar --id a --label x=y --hot-restart"},
		{"gateway --inherit-listener 8080=3 --ip 10.0.0.1 --inherit-listener=8443=4", "gateway --ip 10.0.0.1 --hot-restart"},
		{"sidecar --notify-fd 3 --hot-restart --id a", "sidecar --id a --hot-restart"},
		{"sidecar --hot-restart=false --notify-fd=3", "sidecar --hot-restart"},
		{"sidecar --hot-restart-timeout 5s", "sidecar --hot-restart-timeout 5s --hot-restart"},
	} {
		args := strings.Fields(tc.args)
		if d := cmp.Diff(strings.Fields(tc.want), successorArgs(args)); d != "" {
			t.Errorf("%s: %s", tc.args, d)
		}
		if strings.Join(args, " ") != tc.args {
			t.Errorf("our own arguments became %q", args)
		}
	}
}

func TestWhoStartedUsIsToldOverADescriptorAndBySystemdsProtocol(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	fd, err := syscall.Dup(int(w.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	w.Close()
	path := filepath.Join(t.TempDir(), "notify")
	sock, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer sock.Close()
	var stderr bytes.Buffer
	tell, err := notify(fd, path, &stderr)
	if err != nil {
		t.Fatal(err)
	}
	tell()
	if b, err := io.ReadAll(r); err != nil || string(b) != "serving\n" {
		t.Errorf("descriptor: %q, %v; want the line and an end", b, err)
	}
	b := make([]byte, 100)
	_ = sock.SetReadDeadline(time.Now().Add(time.Minute))
	n, err := sock.Read(b)
	if want := fmt.Sprintf("READY=1\nMAINPID=%d\n", os.Getpid()); err != nil || string(b[:n]) != want {
		t.Errorf("systemd: %q, %v; want %q", b[:n], err, want)
	}
	if stderr.Len() > 0 {
		t.Error(stderr.String())
	}
	tell, err = notify(0, path+"-gone", &stderr)
	if err != nil {
		t.Fatal(err)
	}
	if tell(); !strings.Contains(stderr.String(), "NOTIFY_SOCKET") {
		t.Errorf("a socket that is gone: %q", &stderr)
	}
	if tell, err := notify(0, "", &stderr); tell != nil || err != nil {
		t.Errorf("for nobody: %v", err)
	}
	if _, err := notify(-1, "", &stderr); err == nil {
		t.Error("a negative descriptor")
	}
	if _, err := notify(9999, "", &stderr); err == nil {
		t.Error("a descriptor that is not open")
	}
}
