// Package adminapi reads a running mesh by the Unix sockets of its state
// directory: the control plane's status and objects, the local runtime's pods,
// and each proxy's metrics through the runtime, which connects from inside the
// pod's network namespace.
//
// It only reads. It bounds every answer, keeps at most one idle connection to
// each proxy, and starts nothing. Safe for concurrent use.
package adminapi

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"weft.mesh/weft/api/admin"
)

const (
	maxAnswer    = 64 << 20 // bytes of a JSON answer
	maxError     = 64 << 10 // bytes of an answer that is an error
	idleTimeout  = 10 * time.Second
	maxIdle      = 256 // idle connections to proxies, all together
	adminAddress = "127.0.0.1:15000"
	// hostSuffix makes a host name of a pod, which the transport's key is made of.
	hostSuffix = ".pod"
)

// ErrNotRunning says that nobody serves a socket.
var ErrNotRunning = errors.New("not running")

// Client reads one mesh.
type Client struct {
	dir    string
	socket *http.Client // host: name of the socket
	proxy  *http.Client // host: pod.namespace.pod
}

// New makes a client of the mesh with this state directory. It connects when it is used.
func New(stateDir string) *Client {
	c := &Client{dir: stateDir}
	c.socket = &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, addr string) (net.Conn, error) {
			host, _, err := net.SplitHostPort(addr)
			if err != nil {
				return nil, err
			}
			return c.dial(ctx, host)
		},
		MaxIdleConnsPerHost: 1, IdleConnTimeout: idleTimeout,
	}}
	c.proxy = &http.Client{Transport: &http.Transport{
		DialContext:  func(ctx context.Context, _, addr string) (net.Conn, error) { return c.dialProxy(ctx, addr) },
		MaxIdleConns: maxIdle, MaxIdleConnsPerHost: 1, IdleConnTimeout: idleTimeout, DisableCompression: true,
	}}
	return c
}

// Close closes idle connections.
func (c *Client) Close() {
	c.socket.CloseIdleConnections()
	c.proxy.CloseIdleConnections()
}

// Status of the control plane.
func (c *Client) Status(ctx context.Context) (*admin.ControlStatus, error) {
	var st admin.ControlStatus
	return &st, c.get(ctx, admin.SocketControl, admin.PathStatus, &st)
}

// Objects lists all configuration objects.
func (c *Client) Objects(ctx context.Context) ([]admin.Object, error) {
	var list admin.ObjectList
	err := c.get(ctx, admin.SocketControl, admin.PathObjects, &list)
	return list.Items, err
}

// Pods lists the local runtime's pods.
func (c *Client) Pods(ctx context.Context) ([]admin.Pod, error) {
	var list admin.PodList
	err := c.get(ctx, admin.SocketRuntime, admin.PathPods, &list)
	return list.Items, err
}

// Metrics opens a proxy's metrics in the Prometheus text format. The caller
// bounds what it reads, and closes it.
func (c *Client) Metrics(ctx context.Context, namespace, pod string) (io.ReadCloser, error) {
	if strings.Contains(namespace, ".") || namespace == "" || pod == "" {
		return nil, fmt.Errorf("proxy %s/%s: not a pod's name", namespace, pod)
	}
	u := "http://" + pod + "." + namespace + hostSuffix + "/stats/prometheus"
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u, nil)
	if err != nil {
		return nil, fmt.Errorf("proxy %s/%s: %w", namespace, pod, err)
	}
	req.Host = "localhost:15000"
	resp, err := c.proxy.Do(req)
	if err != nil {
		return nil, fmt.Errorf("proxy %s/%s: read metrics: %w", namespace, pod, unwrap(err))
	}
	if resp.StatusCode != http.StatusOK {
		defer resp.Body.Close()
		return nil, fmt.Errorf("proxy %s/%s: read metrics: %w", namespace, pod, failure(resp))
	}
	return resp.Body, nil
}

func (c *Client) get(ctx context.Context, socket, path string, out any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+socket+path, nil)
	if err != nil {
		return fmt.Errorf("%s: %w", socket, err)
	}
	resp, err := c.socket.Do(req)
	if err != nil {
		return fmt.Errorf("%s: %w", socket, unwrap(err))
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s: %w", socket, path, failure(resp))
	}
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err != nil {
		return fmt.Errorf("%s: %s: %w", socket, path, err)
	}
	if len(b) > maxAnswer {
		return fmt.Errorf("%s: %s: the answer is longer than %d bytes", socket, path, maxAnswer)
	}
	if err := json.Unmarshal(b, out); err != nil {
		return fmt.Errorf("%s: %s: %w", socket, path, err)
	}
	return nil
}

// unwrap takes off the URL, which is made up.
func unwrap(err error) error {
	var ue *url.Error
	if errors.As(err, &ue) {
		return ue.Err
	}
	return err
}

func failure(resp *http.Response) error {
	b, _ := io.ReadAll(io.LimitReader(resp.Body, maxError)) // what came is enough for a message
	var e admin.Error
	if json.Unmarshal(b, &e) == nil && e.Message != "" {
		return errors.New(e.Message)
	}
	return fmt.Errorf("answer %d: %s", resp.StatusCode, bytes.TrimSpace(b))
}

func (c *Client) dial(ctx context.Context, socket string) (net.Conn, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", filepath.Join(c.dir, socket))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		return nil, ErrNotRunning
	}
	return conn, err
}

// dialProxy opens a stream to the admin port inside a pod. addr is what
// Metrics made, with a port.
func (c *Client) dialProxy(ctx context.Context, addr string) (net.Conn, error) {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	host = strings.TrimSuffix(host, hostSuffix)
	i := strings.LastIndexByte(host, '.')
	if i < 0 {
		return nil, fmt.Errorf("%q is not a pod", addr)
	}
	conn, err := c.dial(ctx, admin.SocketRuntime)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	up, err := upgrade(conn, host[i+1:], host[:i])
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	return up, nil
}

func upgrade(conn net.Conn, namespace, pod string) (net.Conn, error) {
	q := url.Values{"namespace": {namespace}, "pod": {pod}, "address": {adminAddress}}
	req, err := http.NewRequest(http.MethodPost, "http://runtime"+admin.PathDial+"?"+q.Encode(), nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Connection", "Upgrade")
	req.Header.Set("Upgrade", "weft-dial")
	if err := req.Write(conn); err != nil {
		return nil, err
	}
	br := bufio.NewReader(conn)
	resp, err := http.ReadResponse(br, req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		return nil, failure(resp)
	}
	return &stream{conn, br}, nil
}

// stream reads first what came together with the answer.
type stream struct {
	net.Conn
	r *bufio.Reader
}

func (s *stream) Read(p []byte) (int, error) { return s.r.Read(p) }
