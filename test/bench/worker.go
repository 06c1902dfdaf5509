package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"
)

// workerArg as first argument makes this program a worker: a process of its own
// that holds sockets, because the ten thousand of one proxy's clients and the
// ten thousand of its backend are more than one process may have open.
const workerArg = "worker"

// order is what a worker of clients is told, one JSON object on a line.
type order struct {
	Op               string // open or burst
	Addr             string
	N                int    // connections
	Cert, Key, Roots string // files; "": plaintext
}

// work runs a worker until its standard input ends. It answers each order with
// a line, "ok" or an error.
func work(args []string, in io.Reader, out io.Writer) error {
	if len(args) == 1 && args[0] == "backend" {
		b, err := startBackend()
		if err != nil {
			return err
		}
		defer b.close()
		fmt.Fprintln(out, b.h1)
		_, err = io.Copy(io.Discard, in)
		return err
	}
	if len(args) != 1 || args[0] != "clients" {
		return fmt.Errorf("worker: %q: want backend or clients", args)
	}
	var conns []*h1Conn
	defer func() { closeAll(conns) }()
	for s := bufio.NewScanner(in); s.Scan(); {
		var o order
		err := json.Unmarshal(s.Bytes(), &o)
		switch {
		case err != nil:
		case o.Op == "open":
			conns, err = o.open()
		case o.Op == "burst":
			err = burst(conns)
		default:
			err = fmt.Errorf("worker: order %q is not known", o.Op)
		}
		if err != nil {
			fmt.Fprintln(out, strings.ReplaceAll(err.Error(), "\n", "; "))
			continue
		}
		fmt.Fprintln(out, "ok")
	}
	return nil
}

// open makes the connections, a few at a time, and sends one request on each.
func (o *order) open() ([]*h1Conn, error) {
	at := target{addr: o.Addr}
	if o.Cert != "" {
		var err error
		if at.tls, err = tlsClient(o.Cert, o.Key, o.Roots, kindTLS); err != nil {
			return nil, err
		}
	}
	conns := make([]*h1Conn, o.N)
	errs := make([]error, handshakers)
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() {
			for j := i; j < o.N && errs[i] == nil; j += len(errs) {
				if conns[j], errs[i] = dialH1(at); errs[i] == nil {
					errs[i] = conns[j].roundTrip(h1Request)
				}
			}
		})
	}
	wg.Wait()
	made := conns[:0]
	for _, c := range conns {
		if c != nil {
			made = append(made, c)
		}
	}
	return made, errors.Join(errs...)
}

// burst has a request on the way on all connections at once: the backend holds them back.
func burst(conns []*h1Conn) error {
	req := h1Get(holdPath)
	for _, c := range conns {
		c.c.SetDeadline(time.Now().Add(time.Minute))
	}
	errs := make([]error, len(conns))
	var wg sync.WaitGroup
	for i, c := range conns {
		if _, err := c.c.Write(req); err != nil {
			return err
		}
		wg.Go(func() {
			body, err := c.read()
			if err == nil {
				err = c.check(body)
			}
			errs[i] = err
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// worker is a worker process as its parent sees it.
type worker struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

func startWorker(kind string) (*worker, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	w := &worker{cmd: exec.Command(self, workerArg, kind)}
	w.cmd.Stderr = os.Stderr
	w.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if w.in, err = w.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := w.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	w.out = bufio.NewReader(out)
	return w, w.cmd.Start()
}

func (w *worker) line() (string, error) {
	s, err := w.out.ReadString('\n')
	if err != nil {
		return "", fmt.Errorf("worker: no answer: %w", err)
	}
	return strings.TrimSpace(s), nil
}

// tell sends an order and waits until it is done.
func (w *worker) tell(o order) error {
	b, err := json.Marshal(o)
	if err != nil {
		return err
	}
	if _, err := w.in.Write(append(b, '\n')); err != nil {
		return err
	}
	s, err := w.line()
	if err == nil && s != "ok" {
		err = fmt.Errorf("%s: %s", o.Op, s)
	}
	return err
}

// stop ends the worker and waits for it.
func (w *worker) stop() {
	w.in.Close()
	w.cmd.Wait()
}
