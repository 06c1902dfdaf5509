// Package call is how one of the sample's services asks another.
//
// The services are unaware of a mesh and help it in one way, which any tracing system
// asks for: headers that belong to a trace are copied from the request that
// came in to the requests that it causes. Retries, timeouts of the mesh, identity and
// encryption are not known here. A [Client] is safe for concurrent use.
package call

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

// Forwarded are the headers that are copied, and no others.
var Forwarded = []string{
	// Trace context: OpenTracing, B3 in both forms, W3C.
	"x-request-id",
	"x-ot-span-context",
	"x-b3-traceid", "x-b3-spanid", "x-b3-parentspanid", "x-b3-sampled", "x-b3-flags",
	"b3",
	"traceparent", "tracestate",
	// Of the application: who is signed in, and with which browser.
	"end-user",
	"user-agent",
}

// Headers returns the headers of in that go with calls made for it.
func Headers(in http.Header) http.Header {
	out := http.Header{}
	for _, name := range Forwarded {
		if v := in.Values(name); len(v) > 0 {
			out[http.CanonicalHeaderKey(name)] = v
		}
	}
	return out
}

const (
	maxBody       = 1 << 20
	idleTimeout   = time.Minute
	idlePerHost   = 64
	maxHeaderSize = 64 << 10
)

// Client asks other services over kept-open connections.
type Client struct{ http *http.Client }

// DialFunc opens connections, as of net.Dialer.
type DialFunc = func(ctx context.Context, network, address string) (net.Conn, error)

// NewClient returns a client. dial is for tests; nil means the real network.
func NewClient(dial DialFunc) *Client {
	if dial == nil {
		dial = (&net.Dialer{Timeout: 5 * time.Second}).DialContext
	}
	return &Client{&http.Client{
		Transport: &http.Transport{
			DialContext:            dial,
			MaxIdleConnsPerHost:    idlePerHost,
			IdleConnTimeout:        idleTimeout,
			MaxResponseHeaderBytes: maxHeaderSize,
			DisableCompression:     true,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// Close closes idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Answer is what the other service said.
type Answer struct {
	Status int
	Header http.Header
	Body   json.RawMessage
}

// Get asks url, with the given headers, and reads the answer, all within timeout. An
// answer with any status is no error.
func (c *Client) Get(ctx context.Context, url string, headers http.Header, timeout time.Duration) (Answer, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return Answer{}, fmt.Errorf("call %s: %w", url, err)
	}
	req.Header = headers.Clone()
	resp, err := c.http.Do(req)
	if err != nil {
		return Answer{}, err // already names method and URL
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxBody+1))
	if err != nil {
		return Answer{}, fmt.Errorf("call %s: read answer: %w", url, err)
	}
	if len(body) > maxBody {
		return Answer{}, fmt.Errorf("call %s: answer is larger than %d bytes", url, maxBody)
	}
	return Answer{resp.StatusCode, resp.Header, body}, nil
}

// Decode asks like Get, wants status 200, and decodes the answer's JSON into v.
func (c *Client) Decode(ctx context.Context, url string, headers http.Header, timeout time.Duration, v any) (Answer, error) {
	a, err := c.Get(ctx, url, headers, timeout)
	if err != nil {
		return a, err
	}
	if a.Status != http.StatusOK {
		return a, fmt.Errorf("call %s: status %d", url, a.Status)
	}
	if err := json.Unmarshal(a.Body, v); err != nil {
		return a, fmt.Errorf("call %s: decode answer: %w", url, err)
	}
	return a, nil
}
