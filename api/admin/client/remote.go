package client

import (
	"context"
	"net"
	"net/http"
)

// Remote is how to reach a mesh that is not on this machine: who answers what
// the control plane's and the runtime's sockets answer here.
type Remote struct {
	Name             string // of the mesh, in errors
	Control, Runtime http.RoundTripper
	// DialProxy opens a stream to the admin port of a pod's proxy.
	DialProxy func(ctx context.Context, namespace, pod string) (net.Conn, error)
}

// NewRemote makes a client of a mesh elsewhere. Exec has nobody to answer it.
func NewRemote(r Remote) *Client {
	c := New("")
	c.remote = &r
	for s, t := range map[*socket]http.RoundTripper{c.control: r.Control, c.runtime: r.Runtime} {
		s.path, s.http = r.Name, &http.Client{Transport: t}
	}
	return c
}
