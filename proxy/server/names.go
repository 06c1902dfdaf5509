package server

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"weft.mesh/weft/proxy/compile"
	"weft.mesh/weft/proxy/telemetry"
	"weft.mesh/weft/proxy/xdsclient"
	"weft.mesh/weft/xds"
	"weft.mesh/weft/xds/nds"
)

// NamesAddress is where a pod's DNS queries are answered, in Istio's words the DNS proxy.
const NamesAddress = "127.0.0.1:15053"

// bindAttempts is how often in a row, bindRetry apart, the address may be taken before the proxy gives up.
const bindAttempts = 10

// NameServer answers DNS queries from the table that was set last, and without one from elsewhere.
type NameServer interface {
	// SetTable is called with each table of the control plane.
	SetTable(table map[string]nds.Info)
	// Run serves both sockets until ctx ends, and closes them.
	Run(ctx context.Context, pc net.PacketConn, ln net.Listener) error
	// Counts is what was asked since the start.
	Counts() NameCounts
}

// NameCounts is what a [NameServer] did.
type NameCounts struct {
	Requests, Forwarded, Failed uint64 // queries; of these, what the pod's name servers were asked; of these, what none answered
	// Took has, for each of Bounds (seconds) and beyond the last, how many queries of the pod's name servers took so long;
	// TookSum is the time of all.
	Bounds  []float64
	Took    []uint64
	TookSum time.Duration
}

// names is the way of the name table into the server that answers from it. To the xDS client
// it is the Sink of all types; the others it hands on.
type names struct {
	xdsclient.Sink
	server  NameServer
	address string

	mu sync.Mutex
	// mu protects the following.
	table *xds.Resource // that is answered from; nil: none
	told  bool          // the control plane said what there is, also if that is nothing
}

// Apply implements [xdsclient.Sink]. A table that cannot be read leaves the one before in force.
func (n *names) Apply(u xdsclient.Update) (refused []string, reason string) {
	if u.TypeURL != xds.NameTableType {
		return n.Sink.Apply(u)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.told = true
	for _, name := range u.Removed {
		if n.table != nil && n.table.Name == name {
			n.table = nil
			n.server.SetTable(nil)
		}
	}
	var rs []compile.Refusal
	for _, r := range u.Set {
		if err := n.take(r); err != nil {
			rs = append(rs, compile.Refusal{TypeURL: r.TypeURL, Name: r.Name, Reason: err.Error()})
			refused = append(refused, r.Name)
		}
	}
	return refused, compile.NACK(rs)
}

// take puts a table in force; mu is held.
func (n *names) take(r *xds.Resource) error {
	if len(r.Body) > compile.MaxResourceBytes {
		return fmt.Errorf("%d bytes, at most %d", len(r.Body), compile.MaxResourceBytes)
	}
	table, err := nds.Decode(r.Body)
	if err != nil {
		return err
	}
	n.table = r
	n.server.SetTable(table)
	return nil
}

// Accepted implements [xdsclient.Sink].
func (n *names) Accepted(typeURL string) []*xds.Resource {
	if typeURL != xds.NameTableType {
		return n.Sink.Accepted(typeURL)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.table == nil {
		return nil
	}
	return []*xds.Resource{n.table}
}

// shown is the table that is answered from; nil: none.
func (n *names) shown() map[string]nds.Info {
	n.mu.Lock()
	r := n.table
	n.mu.Unlock()
	if r == nil {
		return nil
	}
	table, _ := nds.Decode(r.Body) // take has read it before
	return table
}

// writeMetrics writes what Istio's agent counts of its DNS proxy, by its names.
func (n *names) writeMetrics(e *telemetry.Encoder) {
	c := n.server.Counts()
	for _, f := range []struct {
		name, help string
		value      uint64
	}{
		{"istio_agent_dns_requests_total", "DNS queries of the pod.", c.Requests},
		{"istio_agent_dns_upstream_requests_total", "DNS queries that the pod's name servers were asked.", c.Forwarded},
		{"istio_agent_dns_upstream_failures_total", "DNS queries that none of the pod's name servers answered.", c.Failed},
	} {
		e.Family(f.name, f.help, telemetry.KindCounter)
		e.Sample("", float64(f.value))
	}
	e.Family("istio_agent_dns_upstream_request_duration_seconds", "How long the pod's name servers took for a query.", telemetry.KindHistogram)
	sum := uint64(0)
	for i, v := range c.Took {
		sum += v
		le := "+Inf"
		if i < len(c.Bounds) {
			le = strconv.FormatFloat(c.Bounds[i], 'g', -1, 64)
		}
		e.Sample("_bucket", float64(sum), telemetry.Label{Name: "le", Value: le})
	}
	e.Sample("_sum", c.TookSum.Seconds())
	e.Sample("_count", float64(sum))
}

// ready tells whether names can be answered, and why not. Without a name server there is nothing to wait for.
func (n *names) ready() (bool, string) {
	if n == nil {
		return true, ""
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.told {
		return false, "no name table from the control plane yet"
	}
	return true, ""
}

// run serves the names until ctx ends.
func (n *names) run(ctx context.Context) error {
	pc, ln, err := n.listen(ctx)
	if err != nil || ctx.Err() != nil {
		return err
	}
	return n.server.Run(ctx, pc, ln)
}

// listen opens both sockets. In a hot restart the one before us has them still, so that the port is shared for a moment:
// the kernel lets only processes of one user do that.
func (n *names) listen(ctx context.Context) (net.PacketConn, net.Listener, error) {
	lc := net.ListenConfig{Control: shared}
	for i := 1; ; i++ {
		pc, err := lc.ListenPacket(ctx, "udp4", n.address)
		if err == nil {
			var ln net.Listener
			if ln, err = lc.Listen(ctx, "tcp4", pc.LocalAddr().String()); err == nil {
				return pc, ln, nil
			}
			pc.Close()
		}
		if i == bindAttempts {
			return nil, nil, fmt.Errorf("answer DNS queries at %s: %w", n.address, err)
		}
		select {
		case <-ctx.Done():
			return nil, nil, nil
		case <-time.After(bindRetry):
		}
	}
}

// shared lets the socket's port be opened by another process of the same user too.
func shared(_, _ string, c syscall.RawConn) error {
	var err error
	if e := c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1) }); e != nil {
		return e
	}
	return err
}
