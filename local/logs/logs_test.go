package logs

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

func open(t *testing.T, max int64) *Log {
	t.Helper()
	l, err := Open(filepath.Join(t.TempDir(), "pod", "app.log"), max)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func read(t *testing.T, l *Log, tail int) string {
	t.Helper()
	var b bytes.Buffer
	if err := l.Copy(t.Context(), &b, tail, false); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestTail(t *testing.T) {
	l := open(t, 0)
	if got := read(t, l, 5); got != "" {
		t.Errorf("empty log: %q", got)
	}
	fmt.Fprint(l, "one\ntwo\nthree\n")
	for n, want := range map[int]string{All: "one\ntwo\nthree\n", 0: "", 1: "three\n", 2: "two\nthree\n", 3: "one\ntwo\nthree\n", 9: "one\ntwo\nthree\n"} {
		if got := read(t, l, n); got != want {
			t.Errorf("tail %d: %q, want %q", n, got, want)
		}
	}
	fmt.Fprint(l, "no end")
	if got := read(t, l, 2); got != "three\nno end" {
		t.Errorf("an unfinished line: %q", got)
	}
}

func TestTheFileIsRotatedOnceAndBounded(t *testing.T) {
	l := open(t, 1000)
	for i := range 100 {
		fmt.Fprintf(l, "%049d\n", i)
	}
	for _, path := range []string{l.path, l.path + ".1"} {
		st, err := os.Stat(path)
		if err != nil || st.Size() > 1000 || st.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", path, st, err)
		}
	}
	if _, err := os.Stat(l.path + ".2"); err == nil {
		t.Error("a second old file is kept")
	}
	got := read(t, l, All)
	if lines := strings.Count(got, "\n"); lines != 40 || !strings.HasSuffix(got, "99\n") {
		t.Errorf("%d lines, want the 40 that fit both files", lines)
	}
}

func TestMemoryIsBoundedAndHoldsTheNewest(t *testing.T) {
	l := open(t, 0)
	line := strings.Repeat("x", 999) + "\n"
	for range 1000 {
		fmt.Fprint(l, line)
	}
	fmt.Fprint(l, "last\n")
	if len(l.memory) > memorySize || !bytes.HasSuffix(l.Tail(All), []byte("x\nlast\n")) {
		t.Errorf("%d bytes in memory", len(l.memory))
	}
	l.Write(bytes.Repeat([]byte("y"), 2*memorySize))
	if got := l.Tail(All); len(got) != memorySize || got[0] != 'y' {
		t.Errorf("a huge write leaves %d bytes", len(got))
	}
}

// follower collects what Copy writes and can hold it up.
type follower struct {
	mu   sync.Mutex
	b    bytes.Buffer
	gate chan struct{}
}

func (f *follower) Write(p []byte) (int, error) {
	<-f.gate
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.b.Write(p)
}

func (f *follower) String() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.b.String()
}

func TestFollowSeesWhatComesAndEndsWithTheLog(t *testing.T) {
	l := open(t, 100) // rotation in between must not matter
	fmt.Fprint(l, "before\n")
	f := &follower{gate: make(chan struct{})}
	close(f.gate)
	done := make(chan error, 1)
	go func() { done <- l.Copy(context.Background(), f, All, true) }()
	want := "before\n"
	for i := range 50 {
		s := fmt.Sprintf("line %d\n", i)
		want += s
		fmt.Fprint(l, s)
		if i%10 == 0 {
			for deadline := time.Now().Add(time.Minute); !strings.HasSuffix(f.String(), s) && time.Now().Before(deadline); {
				time.Sleep(time.Millisecond)
			}
		}
	}
	l.Close()
	if err := <-done; err != nil || f.String() != want {
		t.Errorf("%v, got %q", err, f.String())
	}
}

func TestASlowFollowerLosesBytesAndIsToldSo(t *testing.T) {
	l := open(t, 0)
	f := &follower{gate: make(chan struct{})}
	done := make(chan error, 1)
	fmt.Fprint(l, "first\n")
	go func() { done <- l.Copy(context.Background(), f, 1, true) }()
	line := strings.Repeat("z", 1023) + "\n"
	for range 3 * memorySize / len(line) {
		fmt.Fprint(l, line) // never blocks
	}
	close(f.gate)
	l.Close()
	if err := <-done; err != nil || !strings.Contains(f.String(), "bytes were skipped") || !strings.HasSuffix(f.String(), "z\n") {
		t.Errorf("%v, %d bytes", err, len(f.String()))
	}
}

func TestFollowEndsWithItsContext(t *testing.T) {
	l := open(t, 0)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := l.Copy(ctx, &bytes.Buffer{}, All, true); err != nil {
		t.Error(err)
	}
}

func TestWritingGoesOnWithoutAFile(t *testing.T) {
	l := open(t, 10)
	os.RemoveAll(filepath.Dir(l.path))
	for range 5 {
		if n, err := fmt.Fprint(l, "rotate me\n"); n != 10 || err != nil {
			t.Fatal(n, err)
		}
	}
	if got := read(t, l, 1); got != "rotate me\n" {
		t.Errorf("got %q", got)
	}
}
