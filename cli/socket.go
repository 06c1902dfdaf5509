package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"syscall"
	"time"

	"weft.mesh/weft/api/admin"
)

// maxAnswer bounds what is read of an answer in bytes.
const maxAnswer = 256 << 20

// answerTimeout bounds the wait for the first byte of an answer: what takes
// longer is stopped, not slow.
const answerTimeout = 30 * time.Second

// socket speaks JSON over HTTP to one of the state directory's sockets.
type socket struct {
	http *http.Client
	path string
}

func (a *app) socket(name string) *socket {
	path := filepath.Join(a.stateDir, name)
	return &socket{path: path, http: &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", path)
		},
		DisableKeepAlives:     true,
		ResponseHeaderTimeout: answerTimeout,
	}}}
}

func (a *app) control() *socket { return a.socket(admin.SocketControl) }
func (a *app) runtime() *socket { return a.socket(admin.SocketRuntime) }

// do sends a request and decodes the answer into out. A 422 is decoded too:
// it carries diagnostics.
func (c *socket) do(ctx context.Context, method, path string, q url.Values, in, out any) error {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(b)
	}
	resp, err := c.send(ctx, method, path, q, body)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("%s: read answer: %w", c.path, err)
	}
	if resp.StatusCode >= 300 && resp.StatusCode != http.StatusUnprocessableEntity {
		return answerError(resp.StatusCode, b)
	}
	if out == nil || len(b) == 0 {
		return nil
	}
	if raw, ok := out.(*[]byte); ok {
		*raw = b
		return nil
	}
	if err := json.Unmarshal(b, out); err != nil {
		return fmt.Errorf("%s: answer to %s: %w", c.path, path, err)
	}
	return nil
}

func (c *socket) send(ctx context.Context, method, path string, q url.Values, body io.Reader) (*http.Response, error) {
	u := url.URL{Scheme: "http", Host: "weft", Path: path, RawQuery: q.Encode()}
	req, err := http.NewRequestWithContext(ctx, method, u.String(), body)
	if err != nil {
		return nil, err
	}
	req.Header.Set("content-type", "application/json")
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.explain(err)
	}
	return resp, nil
}

// stream reads an answer line by line until it ends or fn returns an error.
func (c *socket) stream(ctx context.Context, path string, q url.Values) (io.ReadCloser, error) {
	resp, err := c.send(ctx, http.MethodGet, path, q, nil)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode >= 300 {
		defer resp.Body.Close()
		b, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
		return nil, answerError(resp.StatusCode, b)
	}
	return resp.Body, nil
}

func answerError(status int, b []byte) error {
	var e admin.Error
	if json.Unmarshal(b, &e) == nil && e.Message != "" {
		if e.Hint != "" {
			return withHint(errors.New(e.Message), e.Hint)
		}
		return errors.New(e.Message)
	}
	return fmt.Errorf("answer %d: %s", status, bytes.TrimSpace(b))
}

// explain turns a failed connection into what it means here.
func (c *socket) explain(err error) error {
	if errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.ECONNREFUSED) {
		return &exitError{exitNoMesh, withHint(fmt.Errorf("no mesh is running here (%s)", c.path),
			"start one with `weft up FILE` or `weft demo`, or name its folder with --state-dir")}
	}
	if errors.Is(err, syscall.EACCES) {
		return withHint(fmt.Errorf("%s: permission denied", c.path), "the mesh was started by another user; run weft as that user")
	}
	var ue *url.Error
	if errors.As(err, &ue) {
		err = ue.Err
	}
	var ne net.Error
	if errors.As(err, &ne) && ne.Timeout() {
		return withHint(fmt.Errorf("%s: no answer after %s", c.path, answerTimeout), "the mesh is stopped or overloaded: look at its process and its log")
	}
	return fmt.Errorf("%s: %w", c.path, err)
}

// reachable tells whether something answers on the socket.
func (c *socket) reachable() bool {
	conn, err := net.DialTimeout("unix", c.path, time.Second)
	if err != nil {
		return false
	}
	conn.Close()
	return true
}
