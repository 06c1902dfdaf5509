package console

import (
	"cmp"
	"encoding/json"
	"maps"
	"math"
	"slices"

	"weft.mesh/weft/api/admin"
	"weft.mesh/weft/observe/traffic"
)

// trafficOf works out rates and shares.
func trafficOf(s *traffic.Snapshot, c *traffic.Counts) Traffic {
	t := Traffic{
		Rate: Number(s.Rate(c.Requests)), Success: Number(c.Success()), MTLS: Number(c.MTLS()),
		Refused: Number(math.NaN()), P50: Number(c.Quantile(0.5)), P99: Number(c.Quantile(0.99)),
	}
	if c.Requests > 0 {
		t.Refused = Number(c.Refused / c.Requests)
	}
	if c.Opened > 0 || c.Open > 0 || c.Sent > 0 || c.Received > 0 {
		t.TCP = &TCP{Open: Number(c.Open), Opened: Number(s.Rate(c.Opened)), Sent: Number(s.Rate(c.Sent)), Received: Number(s.Rate(c.Received))}
	}
	return t
}

func (v *view) overview(t *traffic.Snapshot) *Overview {
	o := &Overview{
		At: v.at, Window: t.Window.Seconds(), Covered: Number(t.Seconds), Truncated: t.Truncated,
		Control: Control{Error: message(v.statusErr)}, Error: message(v.podsErr),
		Services: v.services(t),
	}
	if st := v.status; st != nil {
		o.Control.Version, o.Control.Started, o.Control.World = st.Version, st.Started, st.World
		o.Control.Objects, o.Control.Services = st.Objects, st.Services
		o.Problems = len(st.Problems)
	}
	o.Proxies, o.Refused = v.proxies()
	for i := range v.pods {
		o.Pods.add(&v.pods[i])
	}
	var all traffic.Counts
	for i := range t.Edges {
		all.Add(&t.Edges[i].Counts)
	}
	o.Traffic = trafficOf(t, &all)
	o.History = historyOf(t.History[""])
	return o
}

func (r *Ready) add(p *admin.Pod) {
	r.Total++
	if p.Ready {
		r.Ready++
	}
}

// proxies counts those that are connected, those in sync, and those that refused something.
func (v *view) proxies() (r Ready, refused int) {
	if v.status == nil {
		return r, 0
	}
	for i := range v.status.Proxies {
		p := &v.status.Proxies[i]
		if p.Lost != nil {
			continue
		}
		r.Total++
		synced, nack := true, false
		for _, t := range p.Types {
			synced = synced && (t.State == admin.SyncSynced || t.State == admin.SyncNotSent)
			nack = nack || t.State == admin.SyncRefused
		}
		if synced {
			r.Ready++
		}
		if nack {
			refused++
		}
	}
	return r, refused
}

func historyOf(points []traffic.Point) History {
	h := History{Step: traffic.Step.Seconds(), Rate: make([]Number, traffic.Points), Failed: make([]Number, traffic.Points)}
	for i := range h.Rate {
		h.Rate[i], h.Failed[i] = Number(math.NaN()), Number(math.NaN())
		if i < len(points) {
			h.Rate[i], h.Failed[i] = Number(points[i].Rate), Number(points[i].Failed)
		}
	}
	return h
}

// serviceRow gathers one service.
type serviceRow struct {
	Service
	counts   traffic.Counts
	versions map[string]*traffic.Counts
}

// services are those of the configuration and those with traffic.
func (v *view) services(t *traffic.Snapshot) []Service {
	rows := map[string]*serviceRow{}
	row := func(namespace, name string) *serviceRow {
		key := namespace + "/" + name
		r := rows[key]
		if r == nil {
			r = &serviceRow{Service: Service{Namespace: namespace, Name: name}, versions: map[string]*traffic.Counts{}}
			rows[key] = r
		}
		return r
	}
	for i := range v.objects {
		v.configured(&v.objects[i], row)
	}
	for i := range t.Edges {
		e := &t.Edges[i]
		r := row(e.Service.Namespace, serviceName(&e.Service))
		r.counts.Add(&e.Counts)
		version := e.Dest.Version
		if !e.Dest.Known() {
			version = traffic.Unknown
		}
		if r.versions[version] == nil {
			r.versions[version] = &traffic.Counts{}
		}
		r.versions[version].Add(&e.Counts)
	}
	out := make([]Service, 0, len(rows))
	for _, r := range rows {
		out = append(out, r.finish(t))
	}
	slices.SortFunc(out, func(a, b Service) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	return out
}

// serviceName of a host that is none of the mesh's services is the host.
func serviceName(s *traffic.Service) string {
	if s.Name == "" || s.Name == traffic.Unknown {
		return s.Host
	}
	return s.Name
}

// configured adds a row for a Service or ServiceEntry.
func (v *view) configured(o *admin.Object, row func(namespace, name string) *serviceRow) {
	switch o.Kind {
	case "Service":
		var spec struct {
			Spec struct {
				Selector map[string]string `json:"selector"`
			} `json:"spec"`
		}
		r := row(o.Namespace, o.Name)
		r.Known = true
		if json.Unmarshal(o.Raw, &spec) == nil {
			r.Pods = v.selected(o.Namespace, spec.Spec.Selector)
		}
	case "ServiceEntry":
		var entry struct {
			Spec struct {
				Hosts []string `json:"hosts"`
			} `json:"spec"`
		}
		if json.Unmarshal(o.Raw, &entry) == nil {
			for _, h := range entry.Spec.Hosts {
				row(o.Namespace, h).Known = true
			}
		}
	}
}

// selected counts the pods that a selector chooses.
func (v *view) selected(namespace string, selector map[string]string) (r Ready) {
	if len(selector) == 0 {
		return r
	}
	for i := range v.pods {
		p := &v.pods[i]
		if p.Namespace == namespace && contains(p.Labels, selector) {
			r.add(p)
		}
	}
	return r
}

func contains(labels, want map[string]string) bool {
	for k, w := range want {
		if got, ok := labels[k]; !ok || got != w {
			return false
		}
	}
	return true
}

func (r *serviceRow) finish(t *traffic.Snapshot) Service {
	s := r.Service
	s.Traffic = trafficOf(t, &r.counts)
	s.Versions = []Version{}
	for _, name := range slices.Sorted(maps.Keys(r.versions)) {
		c := r.versions[name]
		if c.Requests > 0 {
			s.Versions = append(s.Versions, Version{Version: name, Share: Number(c.Requests / r.counts.Requests), Success: Number(c.Success())})
		}
	}
	if points, ok := t.History[s.Namespace+"/"+s.Name]; ok {
		h := historyOf(points)
		s.History = &h
	}
	return s
}
