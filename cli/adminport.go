package cli

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"weft.mesh/weft/api/admin"
)

// adminPort is the proxy's admin port, on loopback inside the pod.
const adminAddress = "127.0.0.1:15000"

// adminGet asks a pod's proxy, through the runtime, which connects from
// inside the pod's network namespace.
func (a *app) adminGet(ctx context.Context, p podRef, path string) ([]byte, error) {
	return a.adminDo(ctx, p, http.MethodGet, path)
}

func (a *app) adminDo(ctx context.Context, p podRef, method, path string) ([]byte, error) {
	t := &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return a.dialPod(ctx, p, adminAddress)
		},
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://localhost:15000"+path, nil)
	if err != nil {
		return nil, err
	}
	resp, err := t.RoundTrip(req)
	if err != nil {
		return nil, withHint(fmt.Errorf("%s: %w: %w", p, errNoSidecar, err), "see `weft ps` for pods that have one, and `weft logs "+p.String()+" -c istio-proxy`")
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return nil, fmt.Errorf("%s: %s: %w", p, path, err)
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s: answer %d: %s", p, path, resp.StatusCode, b)
	}
	return b, nil
}

// dialPod opens a byte stream to an address as seen from inside a pod.
func (a *app) dialPod(ctx context.Context, p podRef, address string) (net.Conn, error) {
	c := a.runtime()
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", c.path)
	if err != nil {
		return nil, c.explain(err)
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	q := url.Values{"namespace": {p.ns}, "pod": {p.name}, "address": {address}}
	req, err := http.NewRequest(http.MethodPost, "http://weft"+admin.PathDial+"?"+q.Encode(), nil)
	if err != nil {
		conn.Close()
		return nil, err
	}
	req.Header.Set("Connection", "Upgrade")
	req.Header.Set("Upgrade", "weft-dial")
	if err := req.Write(conn); err != nil {
		conn.Close()
		return nil, err
	}
	br := bufio.NewReader(conn)
	resp, err := http.ReadResponse(br, req)
	if err != nil {
		conn.Close()
		return nil, err
	}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		b, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<16))
		conn.Close()
		return nil, answerError(resp.StatusCode, b)
	}
	return &bufferedConn{conn, br}, nil
}

// bufferedConn reads first what came with the answer's head.
type bufferedConn struct {
	net.Conn
	r *bufio.Reader
}

func (c *bufferedConn) Read(p []byte) (int, error) { return c.r.Read(p) }

// protoValue is a message as plain JSON values.
func protoValue(m proto.Message) (any, error) {
	b, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(m)
	if err != nil {
		return nil, err
	}
	var v any
	return v, json.Unmarshal(b, &v)
}
