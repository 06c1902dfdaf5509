package testbed

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"time"
)

// Client asks an API server as its administrator. It is small on purpose:
// the bed itself links no client library, so that building it takes seconds.
type Client struct {
	Server string
	http   *http.Client
}

// NewClient reads the credentials of a PKI directory.
func NewClient(server, pki string) (*Client, error) {
	ca, err := os.ReadFile(filepath.Join(pki, "ca.crt"))
	if err != nil {
		return nil, err
	}
	pair, err := tls.LoadX509KeyPair(filepath.Join(pki, "admin.crt"), filepath.Join(pki, "admin.key"))
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	return &Client{server, &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{pair}}, ForceAttemptHTTP2: true,
	}}}, nil
}

// StatusError is an answer that is not 2xx.
type StatusError struct {
	Code    int
	Message string
}

func (e *StatusError) Error() string { return fmt.Sprintf("%d: %s", e.Code, e.Message) }

// Do sends body as JSON (or as it is, if it is bytes) and decodes the answer into out, unless that is nil. Where the
// server says that it is too early for it (429: a kind's storage is being prepared) it asks again.
func (c *Client) Do(ctx context.Context, method, path, contentType string, body, out any) error {
	for tries := 1; ; tries++ {
		err := c.do(ctx, method, path, contentType, body, out)
		var status *StatusError
		if !errors.As(err, &status) || status.Code != http.StatusTooManyRequests || tries == 20 {
			return err
		}
		wait(ctx, time.Second)
	}
}

func (c *Client) do(ctx context.Context, method, path, contentType string, body, out any) error {
	var r io.Reader
	switch v := body.(type) {
	case nil:
	case []byte:
		r = bytes.NewReader(v)
	default:
		text, err := json.Marshal(v)
		if err != nil {
			return err
		}
		r = bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.Server+path, r)
	if err != nil {
		return err
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 64<<20))
	if err != nil {
		return err
	}
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("%s %s: %w", method, path, &StatusError{resp.StatusCode, shorten(text)})
	}
	if out == nil {
		return nil
	}
	return decode(text, out)
}

func shorten(text []byte) string {
	var status struct{ Message string }
	if json.Unmarshal(text, &status) == nil && status.Message != "" {
		return status.Message
	}
	return string(text[:min(len(text), 300)])
}

// Ready waits until the API server says it is ready and has made the
// namespaces that every cluster has, which it does a second later.
func (c *Client) Ready(ctx context.Context) error {
	for _, path := range []string{"/readyz", "/api/v1/namespaces/kube-system", "/api/v1/namespaces/default"} {
		if err := c.until(ctx, func() error { return c.Do(ctx, http.MethodGet, path, "", nil, nil) }); err != nil {
			return fmt.Errorf("API server %s: %s: %w", c.Server, path, err)
		}
	}
	return nil
}

// until repeats what fails until it does not, or the context ends.
func (c *Client) until(ctx context.Context, try func() error) error {
	var last error
	for {
		err := try()
		if err == nil || ctx.Err() == nil {
			last = err
		}
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w (the last try: %v)", context.Cause(ctx), last)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// decode is json.Unmarshal; text as it is for a *[]byte.
func decode(text []byte, out any) error {
	if raw, ok := out.(*[]byte); ok {
		*raw = text
		return nil
	}
	return json.Unmarshal(text, out)
}
