// Package control is the local runtime's side of the control plane's Unix
// socket: it watches objects and names, and asks for join tokens and roots.
//
// A lost control plane is not an event for the runtime: the watches try again
// with back-off, and what was last known stays in force.
package control

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"weft.mesh/weft/api/admin"
	"weft.mesh/weft/internal/backoff"
)

// Bounds of what is read.
const (
	maxLine = 16 << 20 // one event, or one table of names
	maxBody = 1 << 20  // a token, a bundle of roots, an error
)

// reconnect is the wait between tries to reach a control plane.
var reconnect = backoff.Policy{Base: 50 * time.Millisecond, Max: 2 * time.Second, Factor: 2, Jitter: 0.3}

// Client talks to one control plane. Safe for concurrent use.
type Client struct {
	http *http.Client
	log  *slog.Logger
}

// New makes a client of the socket at path.
func New(path string, log *slog.Logger) *Client {
	var d net.Dialer
	return &Client{log: log, http: &http.Client{Transport: &http.Transport{
		DialContext:         func(ctx context.Context, _, _ string) (net.Conn, error) { return d.DialContext(ctx, "unix", path) },
		MaxIdleConnsPerHost: 2, IdleConnTimeout: 30 * time.Second,
	}}}
}

// Token asks for a single-use join token for a workload's identity.
func (c *Client) Token(ctx context.Context, namespace, serviceAccount string) (string, error) {
	body, err := json.Marshal(admin.TokenRequest{Namespace: namespace, ServiceAccount: serviceAccount})
	if err != nil {
		return "", fmt.Errorf("control plane: ask for a join token: %w", err)
	}
	b, err := c.do(ctx, http.MethodPost, admin.PathTokens, body)
	if err != nil {
		return "", fmt.Errorf("control plane: ask for a join token for %s/%s: %w", namespace, serviceAccount, err)
	}
	var out admin.TokenResponse
	if err := json.Unmarshal(b, &out); err != nil || out.Token == "" {
		return "", fmt.Errorf("control plane: join token for %s/%s: unreadable answer", namespace, serviceAccount)
	}
	return out.Token, nil
}

// Root is the PEM bundle of the trust domain's roots.
func (c *Client) Root(ctx context.Context) ([]byte, error) {
	b, err := c.do(ctx, http.MethodGet, admin.PathRoot, nil)
	if err != nil {
		return nil, fmt.Errorf("control plane: get roots: %w", err)
	}
	if !bytes.Contains(b, []byte("BEGIN CERTIFICATE")) {
		return nil, errors.New("control plane: get roots: the answer holds no certificate")
	}
	return b, nil
}

func (c *Client) do(ctx context.Context, method, path string, body []byte) ([]byte, error) {
	resp, err := c.open(ctx, method, path, body)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	return io.ReadAll(io.LimitReader(resp.Body, maxBody))
}

// open makes a request and checks that it was answered well.
func (c *Client) open(ctx context.Context, method, path string, body []byte) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://control"+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode/100 == 2 {
		return resp, nil
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(io.LimitReader(resp.Body, maxBody))
	var e admin.Error
	if json.Unmarshal(b, &e) == nil && e.Message != "" {
		return nil, fmt.Errorf("%s: %s", resp.Status, e.Message)
	}
	return nil, errors.New(resp.Status)
}

// Objects are the objects of the watched kinds, by kind, namespace and name.
type Objects map[admin.ObjectRef]admin.Object

// WatchObjects reports all objects of the kinds, again after every change,
// until ctx ends. The map given to report is not changed afterwards. After a
// reconnection nothing is reported until the control plane has sent everything,
// so that a restart of it looks like no change.
func (c *Client) WatchObjects(ctx context.Context, kinds []string, report func(Objects)) {
	query := url.Values{"watch": {"true"}, "kind": {strings.Join(kinds, ",")}}
	c.watch(ctx, "objects", admin.PathObjects+"?"+query.Encode(), func() func([]byte) error {
		w := objectWatch{current: Objects{}, report: report}
		return w.line
	})
}

type objectWatch struct {
	current Objects
	synced  bool
	report  func(Objects)
}

func (w *objectWatch) line(b []byte) error {
	var e admin.Event
	if err := json.Unmarshal(b, &e); err != nil {
		return fmt.Errorf("read event: %w", err)
	}
	if e.Type == admin.EventSynced {
		w.synced = true
	} else if e.Object == nil {
		return fmt.Errorf("event %q without an object", e.Type)
	} else {
		ref := admin.ObjectRef{Kind: e.Object.Kind, Namespace: e.Object.Namespace, Name: e.Object.Name}
		switch e.Type {
		case admin.EventPut:
			w.current[ref] = *e.Object
		case admin.EventDelete:
			delete(w.current, ref)
		default:
			return fmt.Errorf("unknown event %q", e.Type)
		}
	}
	if w.synced {
		out := make(Objects, len(w.current))
		for k, v := range w.current {
			out[k] = v
		}
		w.report(out)
	}
	return nil
}

// WatchNames reports the table of names, again after every change, until ctx ends.
func (c *Client) WatchNames(ctx context.Context, report func(admin.NameTable)) {
	c.watch(ctx, "names", admin.PathNames+"?watch=true", func() func([]byte) error {
		return func(b []byte) error {
			var t admin.NameTable
			if err := json.Unmarshal(b, &t); err != nil {
				return fmt.Errorf("read names: %w", err)
			}
			report(t)
			return nil
		}
	})
}

// watch reads a stream of lines for ever, each connection with a new reader.
func (c *Client) watch(ctx context.Context, what, path string, begin func() func([]byte) error) {
	for retry := 0; ctx.Err() == nil; {
		began := time.Now()
		err := c.stream(ctx, path, begin())
		if ctx.Err() != nil {
			return
		}
		if time.Since(began) > reconnect.Max {
			retry = 0
		}
		c.log.Debug("watch of the control plane ended", "what", what, "error", err)
		t := time.NewTimer(reconnect.Delay(retry, 0.5))
		retry++
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
		}
	}
}

func (c *Client) stream(ctx context.Context, path string, line func([]byte) error) error {
	resp, err := c.open(ctx, http.MethodGet, path, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	sc := bufio.NewScanner(resp.Body)
	sc.Buffer(make([]byte, 0, 64<<10), maxLine)
	for sc.Scan() {
		if len(bytes.TrimSpace(sc.Bytes())) == 0 {
			continue
		}
		if err := line(sc.Bytes()); err != nil {
			return err
		}
	}
	if err := sc.Err(); err != nil {
		return err
	}
	return io.EOF
}
