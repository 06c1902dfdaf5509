// Package client talks to a running local runtime by its Unix sockets: what
// weft ps, logs, exec, restart and down do.
package client

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
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"weft.mesh/weft/api/admin"
)

// maxBody is how much of an answer that is no stream is read.
const maxBody = 64 << 20

// ErrNotRunning says that no mesh runs with this state directory.
var ErrNotRunning = errors.New("no mesh is running (start one with weft up or weft demo)")

// Client talks to the runtime of one state directory. Safe for concurrent use.
type Client struct {
	dir  string
	http *http.Client
}

// New makes a client; it connects when it is used.
func New(stateDir string) *Client {
	c := &Client{dir: stateDir}
	c.http = &http.Client{Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return c.dial(ctx, admin.SocketRuntime) }}}
	return c
}

func (c *Client) dial(ctx context.Context, socket string) (net.Conn, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", filepath.Join(c.dir, socket))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		return nil, fmt.Errorf("state directory %s: %w", c.dir, ErrNotRunning)
	}
	return conn, err
}

// Pods lists the pods, sorted by namespace and name.
func (c *Client) Pods(ctx context.Context) ([]admin.Pod, error) {
	resp, err := c.do(ctx, http.MethodGet, admin.PathPods, nil, nil)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	var out admin.PodList
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxBody)).Decode(&out); err != nil {
		return nil, fmt.Errorf("local runtime: list pods: %w", err)
	}
	return out.Items, nil
}

// LogOptions say which output to read.
type LogOptions struct {
	Namespace string // default "default"
	Pod       string // or deployment/NAME, or admin.PodControlPlane
	Container string // default the first program; the sidecar is "istio-proxy"
	Follow    bool
	Tail      int // lines; 0 means all
}

// Logs writes a container's output to w until it ends or ctx does.
func (c *Client) Logs(ctx context.Context, o LogOptions, w io.Writer) error {
	q := url.Values{"namespace": {o.Namespace}, "pod": {o.Pod}, "container": {o.Container},
		"follow": {strconv.FormatBool(o.Follow)}, "tail": {strconv.Itoa(o.Tail)}}
	resp, err := c.do(ctx, http.MethodGet, admin.PathLogs, q, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, err = io.Copy(w, resp.Body)
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// Restart restarts a Deployment's pods one by one, or one container of a pod.
func (c *Client) Restart(ctx context.Context, r admin.RestartRequest) error {
	return c.post(ctx, admin.PathRestart, r)
}

// Signal sends a signal to a container's program.
func (c *Client) Signal(ctx context.Context, r admin.SignalRequest) error {
	return c.post(ctx, admin.PathSignal, r)
}

// Stop asks the mesh to end and returns at once; local.AwaitEnd waits for it.
func (c *Client) Stop(ctx context.Context) error { return c.post(ctx, admin.PathStop, struct{}{}) }

// DialPod opens a stream to an IP address and port as seen from inside a pod,
// like "127.0.0.1:15000" for its sidecar's admin port.
func (c *Client) DialPod(ctx context.Context, namespace, pod, address string) (net.Conn, error) {
	conn, err := c.dial(ctx, admin.SocketRuntime)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	q := url.Values{"namespace": {namespace}, "pod": {pod}, "address": {address}}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://runtime"+admin.PathDial+"?"+q.Encode(), nil)
	if err != nil {
		conn.Close()
		return nil, err
	}
	req.Header.Set("Connection", "Upgrade")
	req.Header.Set("Upgrade", "weft-dial")
	if err := req.Write(conn); err != nil {
		conn.Close()
		return nil, fmt.Errorf("local runtime: dial into pod %s: %w", pod, err)
	}
	r := bufio.NewReader(conn)
	resp, err := http.ReadResponse(r, req)
	if err == nil && resp.StatusCode != http.StatusSwitchingProtocols {
		err = failure(resp)
	}
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("local runtime: dial %s in pod %s: %w", address, pod, err)
	}
	return &bufferedConn{Conn: conn, r: r}, nil
}

// bufferedConn reads first what came together with the answer.
type bufferedConn struct {
	net.Conn
	r *bufio.Reader
}

func (c *bufferedConn) Read(p []byte) (int, error) { return c.r.Read(p) }

// CloseWrite ends our direction only.
func (c *bufferedConn) CloseWrite() error {
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

// Exec runs a command in a pod with the given files as its stdin, stdout and
// stderr, and returns its exit code. The end of ctx ends the command.
func (c *Client) Exec(ctx context.Context, r admin.ExecRequest, stdin, stdout, stderr *os.File) (int, error) {
	conn, err := c.dial(ctx, admin.SocketExec)
	if err != nil {
		return -1, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	line, err := json.Marshal(r)
	if err != nil {
		return -1, fmt.Errorf("local runtime: exec: %w", err)
	}
	line = append(line, '\n')
	rights := unix.UnixRights(int(stdin.Fd()), int(stdout.Fd()), int(stderr.Fd()))
	n, _, err := conn.(*net.UnixConn).WriteMsgUnix(line, rights, nil)
	if err == nil && n < len(line) {
		_, err = conn.Write(line[n:])
	}
	if err != nil {
		return -1, fmt.Errorf("local runtime: exec: send request: %w", err)
	}
	var res admin.ExecResult
	if err := json.NewDecoder(conn).Decode(&res); err != nil {
		if ctx.Err() != nil {
			return -1, ctx.Err()
		}
		return -1, fmt.Errorf("local runtime: exec: the mesh ended before the command: %w", err)
	}
	if res.Error != "" {
		return res.ExitCode, errors.New(res.Error)
	}
	return res.ExitCode, nil
}

func (c *Client) post(ctx context.Context, path string, body any) error {
	b, err := json.Marshal(body)
	if err != nil {
		return err
	}
	resp, err := c.do(ctx, http.MethodPost, path, nil, b)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

func (c *Client) do(ctx context.Context, method, path string, q url.Values, body []byte) (*http.Response, error) {
	u := "http://runtime" + path
	if len(q) > 0 {
		u += "?" + q.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, method, u, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		if errors.Is(err, ErrNotRunning) {
			return nil, errors.Unwrap(err) // without the made-up URL
		}
		return nil, fmt.Errorf("local runtime: %w", err)
	}
	if resp.StatusCode/100 != 2 {
		return nil, failure(resp)
	}
	return resp, nil
}

func failure(resp *http.Response) error {
	defer resp.Body.Close()
	var e admin.Error
	if json.NewDecoder(io.LimitReader(resp.Body, maxBody)).Decode(&e) == nil && e.Message != "" {
		return errors.New(e.Message)
	}
	return fmt.Errorf("local runtime: status %s", resp.Status)
}
