package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"weft.mesh/weft/control/ca"
	"weft.mesh/weft/control/xdsserver"
	"weft.mesh/weft/spiffe"
	"weft.mesh/weft/xds"
)

// mesh is a control plane for weft-proxy: ADS with fixed resources for each
// node and a certificate authority, on one mTLS port, as in a real mesh.
type mesh struct {
	addr      string
	roots     string // file with the root certificate
	tokens    *ca.Tokens
	authority *ca.CA
	xds       *xdsserver.Server
	grpc      *grpc.Server
	done      sync.WaitGroup

	mu   sync.Mutex // protects the following
	snap *fixed
}

func startMesh(dir string) (*mesh, error) {
	authority, err := ca.Open(filepath.Join(dir, "ca"), trustDomain)
	if err != nil {
		return nil, err
	}
	m := &mesh{authority: authority, roots: filepath.Join(dir, "mesh-root.crt"), snap: &fixed{}}
	if err := os.WriteFile(m.roots, authority.Roots(), 0o644); err != nil {
		return nil, err
	}
	if m.tokens, err = ca.OpenTokens(""); err != nil {
		return nil, err
	}
	serving, err := ca.NewServing(authority, []net.IP{net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	m.addr = l.Addr().String()
	log := slog.New(slog.DiscardHandler)
	m.xds = xdsserver.New(xdsserver.Settings{
		Log: log, Observer: silent{}, Authorize: xdsserver.CheckIdentity,
		Authenticate: func(ctx context.Context) (spiffe.ID, error) {
			id, err := ca.PeerID(ctx, trustDomain)
			if err == nil && id.IsZero() {
				err = errors.New("xds: a client certificate is required")
			}
			return id, err
		},
	})
	m.grpc = grpc.NewServer(grpc.Creds(credentials.NewTLS(serving.TLSConfig())))
	m.xds.Register(m.grpc)
	(&ca.Service{CA: authority, Tokens: m.tokens, Log: log}).Register(m.grpc)
	m.done.Go(func() { m.grpc.Serve(l) }) // ends with stop
	return m, nil
}

func (m *mesh) stop() {
	m.grpc.Stop()
	m.done.Wait()
}

// serve gives a node its resources.
func (m *mesh) serve(node string, rs []*xds.Resource) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.snap = m.snap.with(node, rs)
	m.xds.Publish(m.snap)
}

// token makes a join token for a service account, in a file of its own.
func (m *mesh) token(dir, name, account string) (file string, err error) {
	id, err := spiffe.Parse(spiffeID(account))
	if err != nil {
		return "", err
	}
	t, _, err := m.tokens.Issue(id, time.Hour)
	if err != nil {
		return "", err
	}
	file = filepath.Join(dir, name+".token")
	return file, os.WriteFile(file, []byte(t), 0o600)
}

// fixed is a Snapshot of resources by node name.
type fixed struct {
	version int
	nodes   map[string][]*xds.Resource
}

func (f *fixed) with(node string, rs []*xds.Resource) *fixed {
	n := &fixed{version: f.version + 1, nodes: map[string][]*xds.Resource{}}
	for k, v := range f.nodes {
		n.nodes[k] = v
	}
	n.nodes[node] = slices.SortedFunc(slices.Values(rs), func(a, b *xds.Resource) int { return strings.Compare(a.Name, b.Name) })
	return n
}

func (f *fixed) Version() string { return fmt.Sprintf("bench/%d", f.version) }

func (f *fixed) Resources(n *xds.Node, typeURL string, names []string) ([]*xds.Resource, error) {
	all, ok := f.nodes[n.Name]
	if !ok {
		return nil, fmt.Errorf("no resources for node %q", n.Name)
	}
	var out []*xds.Resource
	for _, r := range all {
		if r.TypeURL == typeURL && (names == nil || slices.Contains(names, r.Name)) {
			out = append(out, r)
		}
	}
	return out, nil
}

func (f *fixed) Unchanged(xds.Snapshot, *xds.Node, string) bool { return false }

// silent ignores what happens on streams but a refusal, which is a bug in our configuration.
type silent struct{}

func (silent) Connected(uint64, *xds.Node, spiffe.ID) xdsserver.Witness { return silent{} }
func (silent) Disconnected(uint64)                                      {}
func (silent) Subscribed(string, int)                                   {}
func (silent) Sent(string, string, int, int)                            {}
func (silent) Acked(string, string)                                     {}
func (silent) Settled(string)                                           {}
func (silent) Nacked(typeURL, version, why string) {
	fmt.Fprintf(os.Stderr, "bench: weft-proxy refused %s %s: %s\n", xds.ShortName(typeURL), version, why)
}
