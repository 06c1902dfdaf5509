package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// profile runs the load once more, uncounted, while weft-proxy profiles itself.
// Files are named after the workload and the process: go tool pprof reads them.
func (b *bench) profile(ctx context.Context, w workload, r *running, l load) error {
	if err := os.MkdirAll(b.profiles, 0o755); err != nil {
		return err
	}
	seconds := math.Ceil(b.seconds)
	done := make(chan error, len(r.admin))
	for i, a := range r.admin {
		base := filepath.Join(b.profiles, fileName(w.name)+"-"+r.procs[i].name)
		go func() {
			done <- errors.Join(
				fetch(fmt.Sprintf("http://%s/debug/pprof/profile?seconds=%.0f", a, seconds), base+".cpu"),
				fetch(fmt.Sprintf("http://%s/debug/pprof/allocs", a), base+".allocs"))
		}()
	}
	_, err := l.run(ctx, time.Duration((seconds+0.5)*float64(time.Second)))
	for range r.admin {
		err = errors.Join(err, <-done)
	}
	return err
}

// fileName keeps letters and digits.
func fileName(s string) string {
	return strings.Join(strings.FieldsFunc(s, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9')
	}), "-")
}

func fetch(url, file string) error {
	resp, err := profileClient.Get(url)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != 200 {
		return fmt.Errorf("%s: %s", url, resp.Status)
	}
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, resp.Body)
	return errors.Join(err, f.Close())
}
