package upstream

import (
	"net/netip"
	"sort"
	"time"

	"weft.mesh/weft/proxy/config"
)

// ClusterSnapshot is what admin shows of a cluster.
type ClusterSnapshot struct {
	Config                                                             *config.Cluster
	Conns, Pending, Requests, Retries                                  int64
	CxOverflow, PendingOverflow, RqOverflow, RetryOverflow, NoneUsable uint64
	EjectionsActive                                                    int
	EjectionsTotal                                                     uint64
	Hosts                                                              []HostSnapshot
}

// HostSnapshot is what admin shows of an endpoint.
type HostSnapshot struct {
	Addr                                                           netip.AddrPort
	Endpoint                                                       *config.Endpoint
	CxActive, RqActive                                             int64
	CxTotal, CxConnectFail, RqTotal, RqSuccess, RqError, RqTimeout uint64
	Ejected                                                        bool
	Ejections                                                      uint64
	EjectedSince                                                   time.Time
	EjectionCause                                                  string
	TLS                                                            bool
}

// Snapshot reads all counters, sorted by cluster name and address.
func (m *Manager) Snapshot() []ClusterSnapshot {
	all := *m.clusters.Load()
	out := make([]ClusterSnapshot, 0, len(all))
	for _, c := range all {
		out = append(out, c.Snapshot())
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Config.Name < out[j].Config.Name })
	return out
}

// Snapshot reads the cluster's counters.
func (c *Cluster) Snapshot() ClusterSnapshot {
	s := c.cur.Load()
	d := c.detector.Load()
	out := ClusterSnapshot{
		Config: s.cfg, Conns: c.conns.Load(), Pending: c.pending.Load(), Requests: c.requests.Load(), Retries: c.retries.Load(),
		CxOverflow: c.Stats.CxOverflow.Load(), PendingOverflow: c.Stats.PendingOverflow.Load(), RqOverflow: c.Stats.RqOverflow.Load(),
		RetryOverflow: c.Stats.RetryOverflow.Load(), NoneUsable: c.Stats.NoneHealthy.Load(),
	}
	if d != nil {
		st := d.Stats()
		out.EjectionsActive, out.EjectionsTotal = st.Active, st.Total
	}
	for _, h := range s.all {
		x := HostSnapshot{
			Addr: h.Addr(), Endpoint: h.Endpoint(), TLS: h.tls != nil, Ejected: h.Ejected(),
			CxActive: h.Stats.CxActive.Load(), RqActive: h.Stats.RqActive.Load(), CxTotal: h.Stats.CxTotal.Load(),
			CxConnectFail: h.Stats.CxConnectFail.Load(), RqTotal: h.Stats.RqTotal.Load(), RqSuccess: h.Stats.RqSuccess.Load(),
			RqError: h.Stats.RqError.Load(), RqTimeout: h.Stats.RqTimeout.Load(),
		}
		if d != nil {
			n, since, why := d.Ejections(&h.outlier)
			x.Ejections, x.EjectedSince, x.EjectionCause = n, since, string(why)
		}
		out.Hosts = append(out.Hosts, x)
	}
	sort.Slice(out.Hosts, func(i, j int) bool { return out.Hosts[i].Addr.Compare(out.Hosts[j].Addr) < 0 })
	return out
}
