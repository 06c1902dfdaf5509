package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"

	"weft.mesh/weft/api/admin"
)

// Reachable tells whether a control plane takes connections.
func (c *Client) Reachable(ctx context.Context) bool {
	if c.remote != nil {
		return true // it is asked when it is needed
	}
	conn, err := c.control.dial(ctx)
	if err != nil {
		return false
	}
	conn.Close()
	return true
}

// Status of the control plane.
func (c *Client) Status(ctx context.Context) (*admin.ControlStatus, error) {
	var st admin.ControlStatus
	if err := c.control.get(ctx, admin.PathStatus, nil, &st); err != nil {
		return nil, err
	}
	return &st, nil
}

// Find narrows a list of objects; what is empty does not.
type Find struct{ Kind, Namespace, Name string }

// Objects lists all configuration objects.
func (c *Client) Objects(ctx context.Context) ([]admin.Object, error) {
	return c.Find(ctx, Find{})
}

// Find lists the configuration objects that fit.
func (c *Client) Find(ctx context.Context, f Find) ([]admin.Object, error) {
	q := url.Values{}
	for k, v := range map[string]string{"kind": f.Kind, "namespace": f.Namespace, "name": f.Name} {
		if v != "" {
			q.Set(k, v)
		}
	}
	var list admin.ObjectList
	err := c.control.get(ctx, admin.PathObjects, q, &list)
	return list.Items, err
}

// Apply checks files against the whole mesh and stores them. Refused files are
// no error: the answer's diagnostics say so.
func (c *Client) Apply(ctx context.Context, r admin.ApplyRequest) (out admin.ApplyResponse, err error) {
	return out, c.control.post(ctx, admin.PathApply, r, &out)
}

// Diff tells what Apply would do.
func (c *Client) Diff(ctx context.Context, r admin.ApplyRequest) (out admin.DiffResponse, err error) {
	return out, c.control.post(ctx, admin.PathDiff, r, &out)
}

// Delete removes objects from the store.
func (c *Client) Delete(ctx context.Context, r admin.DeleteRequest) (out admin.ApplyResponse, err error) {
	return out, c.control.post(ctx, admin.PathDelete, r, &out)
}

// Scale sets a Deployment's replicas.
func (c *Client) Scale(ctx context.Context, r admin.ScaleRequest) (out admin.ApplyResponse, err error) {
	return out, c.control.post(ctx, admin.PathScale, r, &out)
}

// Token asks for a single-use join token for a workload's identity, with the default life.
func (c *Client) Token(ctx context.Context, namespace, serviceAccount string) (string, error) {
	out, err := c.CreateToken(ctx, admin.TokenRequest{Namespace: namespace, ServiceAccount: serviceAccount})
	if err != nil {
		return "", fmt.Errorf("join token for %s/%s: %w", namespace, serviceAccount, err)
	}
	return out.Token, nil
}

// CreateToken asks for a single-use join token.
func (c *Client) CreateToken(ctx context.Context, r admin.TokenRequest) (out admin.TokenResponse, err error) {
	if err := c.control.post(ctx, admin.PathTokens, r, &out); err != nil {
		return out, err
	}
	if out.Token == "" {
		return out, c.control.fail(admin.PathTokens, errors.New("the answer holds no token"))
	}
	return out, nil
}

// Retired tells whether a pod that is ending gets no new requests any more. It waits for that for about a second.
func (c *Client) Retired(ctx context.Context, namespace, pod string) (out admin.Retired, err error) {
	q := url.Values{"namespace": {namespace}, "pod": {pod}}
	return out, c.control.get(ctx, admin.PathRetired, q, &out)
}

// Root is the PEM bundle of the trust domain's roots.
func (c *Client) Root(ctx context.Context) ([]byte, error) {
	b, err := c.control.raw(ctx, http.MethodGet, admin.PathRoot, nil, nil)
	if err != nil {
		return nil, err
	}
	if !bytes.Contains(b, []byte("BEGIN CERTIFICATE")) {
		return nil, c.control.fail(admin.PathRoot, errors.New("the answer holds no certificate"))
	}
	return b, nil
}
