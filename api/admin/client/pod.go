package client

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"

	"weft.mesh/weft/api/admin"
)

// adminAddress is a proxy's admin port as its pod sees it.
const adminAddress = "127.0.0.1:15000"

// DialPod opens a stream to an IP address and port as seen from inside a pod,
// like "127.0.0.1:15000" for its sidecar's admin port.
func (c *Client) DialPod(ctx context.Context, namespace, pod, address string) (net.Conn, error) {
	s := c.runtime
	conn, err := s.dial(ctx)
	if err != nil {
		return nil, s.fail(admin.PathDial, err)
	}
	w := newWait(ctx)
	defer w.end()
	stop := context.AfterFunc(w.ctx, func() { conn.Close() })
	q := url.Values{"namespace": {namespace}, "pod": {pod}, "address": {address}}
	up, err := s.upgrade(conn, q)
	if !stop() && err == nil { // the connection is closed, or is about to be
		err = w.ctx.Err()
	}
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("dial %s in pod %s/%s: %w", address, namespace, pod, s.fail(admin.PathDial, w.cause(err)))
	}
	return up, nil
}

func (s *socket) upgrade(conn net.Conn, q url.Values) (net.Conn, error) {
	req, err := http.NewRequest(http.MethodPost, "http://weft"+admin.PathDial+"?"+q.Encode(), nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Connection", "Upgrade")
	req.Header.Set("Upgrade", "weft-dial")
	if err := req.Write(conn); err != nil {
		return nil, err
	}
	// The head comes from the runtime, the rest from the pod: only the head is bounded.
	head := &io.LimitedReader{R: conn, N: maxError}
	r := bufio.NewReader(head)
	resp, err := http.ReadResponse(r, req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		return nil, s.refused(admin.PathDial, resp)
	}
	early, err := r.Peek(r.Buffered())
	if err != nil {
		return nil, err
	}
	return &upgraded{Conn: conn, early: append([]byte(nil), early...)}, nil
}

// upgraded reads first what came together with the answer's head.
type upgraded struct {
	net.Conn
	early []byte
}

func (c *upgraded) Read(p []byte) (int, error) {
	if len(c.early) > 0 {
		n := copy(p, c.early)
		c.early = c.early[n:]
		return n, nil
	}
	return c.Conn.Read(p)
}

// CloseWrite ends our direction only.
func (c *upgraded) CloseWrite() error {
	return c.Conn.(interface{ CloseWrite() error }).CloseWrite()
}

// HTTP is an HTTP client whose connections begin inside a pod, for URLs with IP
// addresses: http://127.0.0.1:15000/config_dump is the sidecar's.
func (c *Client) HTTP(namespace, pod string) *http.Client {
	return &http.Client{Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, address string) (net.Conn, error) {
			return c.DialPod(ctx, namespace, pod, address)
		}}}
}

// ErrNoProxy says that no proxy answers in a pod.
var ErrNoProxy = fmt.Errorf("no proxy answers in this pod")

// Admin opens the answer of a sidecar's admin port. The caller bounds what it
// reads, and closes it.
func (c *Client) Admin(ctx context.Context, namespace, pod, method, path string) (io.ReadCloser, error) {
	host, err := proxyHost(namespace, pod)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://"+host+path, nil)
	if err != nil {
		return nil, fmt.Errorf("proxy %s/%s: %w", namespace, pod, err)
	}
	req.Host = "localhost:15000"
	resp, err := c.proxy.Do(req)
	if err != nil {
		if ue, ok := err.(*url.Error); ok { // its URL is made up
			err = ue.Err
		}
		return nil, fmt.Errorf("proxy %s/%s: %w: %w", namespace, pod, ErrNoProxy, err)
	}
	if resp.StatusCode != http.StatusOK {
		defer resp.Body.Close()
		err, _ := said(resp)
		return nil, fmt.Errorf("proxy %s/%s: %s: %w", namespace, pod, path, err)
	}
	return resp.Body, nil
}

// AdminPage reads a page of a sidecar's admin port whole.
func (c *Client) AdminPage(ctx context.Context, namespace, pod, method, path string) ([]byte, error) {
	body, err := c.Admin(ctx, namespace, pod, method, path)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	b, err := readAll(body, maxAnswer)
	if err != nil {
		return nil, fmt.Errorf("proxy %s/%s: %s: %w", namespace, pod, path, err)
	}
	return b, nil
}

// Metrics opens a proxy's metrics in the Prometheus text format. The caller
// bounds what it reads, and closes it.
func (c *Client) Metrics(ctx context.Context, namespace, pod string) (io.ReadCloser, error) {
	return c.Admin(ctx, namespace, pod, http.MethodGet, "/stats/prometheus")
}

// proxySuffix ends the host names that stand for pods, by which connections are kept.
const proxySuffix = ".pod"

func proxyHost(namespace, pod string) (string, error) {
	if strings.Contains(namespace, ".") || namespace == "" || pod == "" {
		return "", fmt.Errorf("proxy %s/%s: not a pod's name", namespace, pod)
	}
	return pod + "." + namespace + proxySuffix, nil
}

// dialProxy dials what proxyHost made, with a port.
func (c *Client) dialProxy(ctx context.Context, addr string) (net.Conn, error) {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	host = strings.TrimSuffix(host, proxySuffix)
	i := strings.LastIndexByte(host, '.')
	if i < 0 {
		return nil, fmt.Errorf("%q is not a pod", addr)
	}
	if c.remote != nil {
		return c.remote.DialProxy(ctx, host[i+1:], host[:i])
	}
	return c.DialPod(ctx, host[i+1:], host[:i], adminAddress)
}
