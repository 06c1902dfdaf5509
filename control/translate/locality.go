package translate

import (
	"cmp"
	"maps"
	"math"
	"slices"
	"strings"

	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"

	"weft.mesh/weft/control/snapshot"
	"weft.mesh/weft/model"
)

// Labels that say where a workload is, besides its own, for failoverPriority.
const (
	labelRegion  = "topology.kubernetes.io/region"
	labelZone    = "topology.kubernetes.io/zone"
	labelSubzone = "topology.istio.io/subzone"
	labelCluster = "topology.istio.io/cluster"
	labelNetwork = "topology.istio.io/network"
	labelNode    = "kubernetes.io/hostname"
)

// place is where a client is, as far as it decides on the order of endpoints.
type place struct {
	locality string
	node     string
	labels   map[string]string
	cluster  string
}

func (s *Snapshot) placeOf(v *view) *place {
	return &place{locality: v.locality, node: v.workload.Node, labels: v.labels, cluster: s.mesh.ClusterID}
}

// label is a label of the client, or of where it is.
func (p *place) label(key string) string {
	return labelOf(key, p.labels, p.locality, p.cluster, "", p.node)
}

func labelOf(key string, own map[string]string, locality, cluster, network, node string) string {
	l := localityOf(locality)
	switch key {
	case labelRegion:
		return l[0]
	case labelZone:
		return l[1]
	case labelSubzone:
		return l[2]
	case labelCluster:
		return cluster
	case labelNetwork:
		return cmp.Or(network, own[key])
	case labelNode:
		return cmp.Or(node, own[key])
	}
	return own[key]
}

// localityOf splits region/zone/subzone.
func localityOf(s string) (parts [3]string) {
	copy(parts[:], strings.SplitN(s, "/", 3))
	return parts
}

// localitySetting is the setting in force for a target; nil if localities do not count.
func (s *Snapshot) localitySetting(t *target) *model.LocalityLB {
	p := t.policy()
	set := s.mesh.LocalityLB
	if p.LB != nil && p.LB.Locality != nil {
		set = p.LB.Locality
	}
	switch {
	case set == nil:
		set = &model.LocalityLB{}
	case set.Disabled:
		return nil
	}
	if len(set.Distribute) == 0 && p.Outlier == nil {
		return nil // without outlier detection nobody would ever leave the nearest (Istio)
	}
	return set
}

// nearness is how one client orders the endpoints of a target.
type nearness struct {
	*model.LocalityLB
	*place
}

// nearness returns nil, and no key, where all clients see the same, and for
// one that is nowhere (at is nil).
func (s *Snapshot) nearness(t *target, eps *snapshot.Endpoints, at *place) (*nearness, string) {
	if at == nil {
		return nil, ""
	}
	set := s.localitySetting(t)
	if set == nil || len(set.Distribute) == 0 && len(set.FailoverPriority) == 0 && !eps.Spread {
		return nil, ""
	}
	n := &nearness{set, at}
	if len(set.Distribute) > 0 {
		if n.distribution() == nil {
			return nil, ""
		}
		return n, "distribute|" + at.locality
	}
	key := []string{"failover", at.locality}
	for _, l := range set.FailoverPriority {
		key = append(key, at.label(l)) // of key=value nobody asks the client
	}
	return n, strings.Join(key, "|")
}

// distribution is the first that is for clients of this place.
func (n *nearness) distribution() *model.Distribute {
	for i := range n.Distribute {
		if localityMatches(n.Distribute[i].From, n.locality) {
			return &n.Distribute[i]
		}
	}
	return nil
}

// localityMatches compares with a pattern of which parts may be "*" or missing.
func localityMatches(pattern, locality string) bool {
	p, l := localityOf(pattern), localityOf(locality)
	for i := range p {
		if p[i] != "*" && p[i] != l[i] && (i == 0 || p[i] != "") {
			return false
		}
	}
	return true
}

// Ranks of a locality for failover, the nearest first.
const (
	sameSubzone = iota
	sameZone
	sameRegion
	failoverRegion // or any other region where no failover is set for ours
	otherRegion
	ranks
)

// rank orders an endpoint: the lower, the nearer.
func (n *nearness) rank(e *snapshot.Endpoint) int {
	switch {
	case len(n.Distribute) > 0:
		return 0
	case len(n.FailoverPriority) == 0:
		return n.localityRank(e)
	case len(n.Failover) == 0:
		return n.labelRank(e)
	}
	return n.labelRank(e)*ranks + n.localityRank(e)
}

func (n *nearness) localityRank(e *snapshot.Endpoint) int {
	own, other := localityOf(n.locality), localityOf(e.Locality)
	switch {
	case own == other:
		return sameSubzone
	case own[0] == other[0] && own[1] == other[1]:
		return sameZone
	case own[0] == other[0]:
		return sameRegion
	}
	for _, f := range n.Failover {
		if f.From == own[0] && f.To != other[0] {
			return otherRegion
		}
	}
	return failoverRegion
}

// labelRank is 0 for an endpoint that has all labels as the client has them, and
// grows with the importance of the first that differs.
func (n *nearness) labelRank(e *snapshot.Endpoint) int {
	node := ""
	if e.Workload != nil {
		node = e.Workload.Node
	}
	for i, l := range n.FailoverPriority {
		key, want, given := strings.Cut(l, "=")
		if !given {
			want = n.label(key)
		}
		if labelOf(key, e.Labels, e.Locality, n.cluster, e.Network, node) != want {
			return len(n.FailoverPriority) - i
		}
	}
	return 0
}

// group is endpoints of one rank and locality.
type group struct {
	rank     int
	locality string
}

// priorities turns ranks into priorities without gaps, which Envoy wants, and
// sorts by them.
func priorities(byGroup map[group]*endpointv3.LocalityLbEndpoints, order []group) []*endpointv3.LocalityLbEndpoints {
	slices.SortStableFunc(order, func(a, b group) int { return cmp.Compare(a.rank, b.rank) })
	out := make([]*endpointv3.LocalityLbEndpoints, 0, len(order))
	last, priority := 0, uint32(0)
	for i, g := range order {
		if i > 0 && g.rank != last {
			priority++
		}
		last = g.rank
		l := byGroup[g]
		l.Priority = priority
		out = append(out, l)
	}
	return out
}

// distribute gives each locality its share of 100. Those that one entry matches
// share it by their weights; those that none matches get nothing.
func distribute(d *model.Distribute, a *endpointv3.ClusterLoadAssignment, order []group) {
	left := map[int]bool{}
	for i := range a.Endpoints {
		left[i] = true
	}
	for _, to := range slices.Sorted(maps.Keys(d.To)) {
		var fits []int
		var sum uint64
		for i, l := range a.Endpoints {
			if left[i] && localityMatches(to, order[i].locality) {
				fits, sum = append(fits, i), sum+uint64(l.LoadBalancingWeight.GetValue())
				delete(left, i)
			}
		}
		for _, i := range fits {
			w := &a.Endpoints[i].LoadBalancingWeight.Value
			*w = uint32(math.Ceil(float64(*w) * float64(d.To[to]) / float64(sum)))
		}
	}
	kept := a.Endpoints[:0]
	for i, l := range a.Endpoints {
		if !left[i] {
			kept = append(kept, l)
		}
	}
	a.Endpoints = kept
}
