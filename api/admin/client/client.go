// Package client talks to a running mesh by the Unix sockets of its state
// directory: to the control plane (objects, status, tokens, names), to the local
// runtime (pods, logs, restarts), and through the runtime into pods (a command,
// a byte stream, a sidecar's admin port).
//
// It owns the sockets' contract from the caller's side: every answer, line and
// wait is bounded, and every error of its own is an [*Error], which names the
// socket, the cause and, where it is known, the fix. It keeps no connection but
// at most one idle one to each proxy, starts nothing before it is used, and is
// safe for concurrent use. It knows no plane.
package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"time"

	"weft.mesh/weft/api/admin"
)

// Bounds.
const (
	maxAnswer = 256 << 20 // bytes of an answer that is no stream: a configuration dump is the largest
	maxError  = 64 << 10  // bytes of an answer that is an error
	maxLine   = 16 << 20  // bytes of one event, or one table of names

	// AnswerTimeout bounds the wait for the head of an answer, and again that
	// for its end where it is no stream: what takes longer is stopped, not slow.
	AnswerTimeout = 30 * time.Second

	proxyIdle  = 10 * time.Second // how long a connection to a proxy waits for its next use
	maxProxies = 256              // idle connections to proxies, all together
)

// Client talks to the mesh of one state directory.
type Client struct {
	control, runtime, exec *socket
	proxy                  *http.Client // host: what proxyHost makes
	remote                 *Remote      // nil on this machine
}

// New makes a client of the mesh with this state directory. It connects when it is used.
func New(stateDir string) *Client {
	at := func(name string) *socket { return newSocket(filepath.Join(stateDir, name)) }
	c := &Client{control: at(admin.SocketControl), runtime: at(admin.SocketRuntime), exec: at(admin.SocketExec)}
	c.proxy = &http.Client{Transport: &http.Transport{
		DialContext:  func(ctx context.Context, _, addr string) (net.Conn, error) { return c.dialProxy(ctx, addr) },
		MaxIdleConns: maxProxies, MaxIdleConnsPerHost: 1, IdleConnTimeout: proxyIdle,
		DisableCompression: true, ResponseHeaderTimeout: AnswerTimeout,
	}}
	return c
}

// Close closes the idle connections to proxies.
func (c *Client) Close() { c.proxy.CloseIdleConnections() }

// socket speaks JSON over HTTP to one Unix socket, one connection for each
// call: a connection costs microseconds here, and none can be stale.
type socket struct {
	path string
	http *http.Client
}

func newSocket(path string) *socket {
	s := &socket{path: path}
	s.http = &http.Client{Transport: &http.Transport{
		DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return s.dial(ctx) },
		DisableKeepAlives: true, DisableCompression: true,
	}}
	return s
}

func (s *socket) dial(ctx context.Context) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, "unix", s.path)
}

// get reads the JSON answer to a GET into out.
func (s *socket) get(ctx context.Context, path string, q url.Values, out any) error {
	return s.call(ctx, http.MethodGet, path, q, nil, out)
}

// post sends in as JSON and reads the answer into out, unless that is nil.
func (s *socket) post(ctx context.Context, path string, in, out any) error {
	b, err := json.Marshal(in)
	if err != nil {
		return s.fail(path, err)
	}
	return s.call(ctx, http.MethodPost, path, nil, b, out)
}

func (s *socket) call(ctx context.Context, method, path string, q url.Values, body []byte, out any) error {
	b, err := s.raw(ctx, method, path, q, body)
	if err != nil || out == nil {
		return err
	}
	if err := json.Unmarshal(b, out); err != nil {
		return s.fail(path, err)
	}
	return nil
}

// raw reads an answer whole.
func (s *socket) raw(ctx context.Context, method, path string, q url.Values, body []byte) ([]byte, error) {
	resp, wait, err := s.open(ctx, method, path, q, body)
	if err != nil {
		return nil, err
	}
	defer wait.end()
	defer resp.Body.Close()
	wait.again()
	b, err := readAll(resp.Body, maxAnswer)
	if err != nil {
		return nil, s.fail(path, wait.cause(err))
	}
	return b, nil
}

// stream opens an answer that lasts as long as it likes. Closing it ends it.
func (s *socket) stream(ctx context.Context, path string, q url.Values) (io.ReadCloser, error) {
	resp, wait, err := s.open(ctx, http.MethodGet, path, q, nil)
	if err != nil {
		return nil, err
	}
	wait.stop()
	return &streamBody{resp.Body, wait}, nil
}

type streamBody struct {
	io.ReadCloser
	wait *wait
}

func (b *streamBody) Close() error {
	defer b.wait.end()
	return b.ReadCloser.Close()
}

// open makes a request and checks that it was answered well. The caller ends
// the returned wait after the body. A 422 is an answer: it carries diagnostics.
func (s *socket) open(ctx context.Context, method, path string, q url.Values, body []byte) (*http.Response, *wait, error) {
	w := newWait(ctx)
	u := url.URL{Scheme: "http", Host: "weft", Path: path, RawQuery: q.Encode()}
	req, err := http.NewRequestWithContext(w.ctx, method, u.String(), bytes.NewReader(body))
	if err != nil {
		w.end()
		return nil, nil, s.fail(path, err)
	}
	req.Header.Set("content-type", "application/json")
	resp, err := s.http.Do(req)
	if err != nil {
		err = s.fail(path, w.cause(err))
		w.end()
		return nil, nil, err
	}
	if resp.StatusCode/100 != 2 && resp.StatusCode != http.StatusUnprocessableEntity {
		w.again()
		err := s.refused(path, resp)
		w.end()
		return nil, nil, err
	}
	return resp, w, nil
}

// wait ends what takes longer than AnswerTimeout.
type wait struct {
	ctx    context.Context
	cancel context.CancelCauseFunc
	timer  *time.Timer
}

// errSlow is the cause of a context that wait ended.
var errSlow = errors.New("no answer after " + AnswerTimeout.String())

func newWait(ctx context.Context) *wait {
	w := &wait{}
	w.ctx, w.cancel = context.WithCancelCause(ctx)
	w.timer = time.AfterFunc(AnswerTimeout, func() { w.cancel(errSlow) })
	return w
}

func (w *wait) again() { w.timer.Reset(AnswerTimeout) }
func (w *wait) stop()  { w.timer.Stop() }
func (w *wait) end()   { w.timer.Stop(); w.cancel(nil) }

// cause is err, or what ended the context.
func (w *wait) cause(err error) error {
	if c := context.Cause(w.ctx); c != nil {
		return c
	}
	return err
}

// readAll reads at most limit bytes; more is an error.
func readAll(r io.Reader, limit int64) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = errTooLong
	}
	return b, err
}

var errTooLong = errors.New("the answer is longer than is read of one")
