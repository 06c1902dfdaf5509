package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// planeAddress is an address of loopback that nobody else uses, since the ports are fixed.
const planeAddress = "127.77.0.1"

// plane is the control plane's process.
type plane struct {
	binary, dir, kubeconfig string
	env                     []string
	cmd                     *exec.Cmd
	done                    chan struct{}
}

// start runs it, and returns at once. The kernel ends it if we die.
func (p *plane) start() error {
	log, err := os.OpenFile(filepath.Join(p.dir, "weft.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	p.cmd = exec.Command(p.binary, "--state-dir", filepath.Join(p.dir, "state"), "control-plane", "--kubernetes", "--kubeconfig", p.kubeconfig,
		"--address", planeAddress, "--namespace", rootNamespace, "--drain", "0s")
	p.cmd.Env = append(os.Environ(), p.env...)
	p.cmd.Stdout, p.cmd.Stderr = log, log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		return err
	}
	p.done = make(chan struct{})
	go func(c *exec.Cmd, done chan struct{}) {
		c.Wait()
		close(done)
	}(p.cmd, p.done)
	return nil
}

// kill ends it as a crash would.
func (p *plane) kill() {
	if p.cmd == nil {
		return
	}
	p.cmd.Process.Kill()
	<-p.done
}

// ready waits until it serves.
func (p *plane) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, 2*time.Minute, errors.New("not ready after 2 minutes"))
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+planeAddress+":15014/ready", nil)
		if err != nil {
			return err
		}
		if resp, err := http.DefaultClient.Do(req); err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("control plane: %w\n%s", context.Cause(ctx), p.lastWords())
		case <-p.done:
			return fmt.Errorf("control plane: it ended\n%s", p.lastWords())
		case <-tick.C:
		}
	}
}

func (p *plane) lastWords() string {
	b, _ := os.ReadFile(filepath.Join(p.dir, "weft.log"))
	return string(b[max(0, len(b)-2000):])
}

// cpu is the time that the process has been on a processor.
func (p *plane) cpu() time.Duration {
	var sum time.Duration
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", p.cmd.Process.Pid))
	for _, f := range files {
		b, _ := os.ReadFile(f)
		first, _, _ := bytes.Cut(b, []byte{' '})
		n, _ := strconv.ParseInt(string(first), 10, 64)
		sum += time.Duration(n)
	}
	return sum
}

// memory is the resident set now and at its largest, in bytes.
func (p *plane) memory() (now, peak int64) {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	for line := range strings.Lines(string(b)) {
		key, rest, _ := strings.Cut(line, ":")
		n, _ := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
		switch key {
		case "VmRSS":
			now = n << 10
		case "VmHWM":
			peak = n << 10
		}
	}
	return now, peak
}
