package compile

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"weft.mesh/weft/proxy/config"
	"weft.mesh/weft/xds"
)

// Waiting for resources that others refer to.
const (
	// DefaultFetchTimeout is Envoy's initial_fetch_timeout.
	DefaultFetchTimeout = 15 * time.Second
	// MaxFetchTimeout bounds waits that are configured as endless (0s).
	MaxFetchTimeout = time.Minute
)

// MaxResourceBytes bounds one encoded resource.
const MaxResourceBytes = 16 << 20

// Settings of a [Compiler]; nothing in them changes after New.
type Settings struct {
	HTTPFilters    []HTTPFilter
	NetworkFilters []NetworkFilter
	AccessLog      NewAccessLog // nil: access logs are refused
	// ReadFile reads certificates and formats that resources name; nil: files are refused.
	ReadFile func(name string) ([]byte, error)
	// Gateway tells that outbound listeners belong to a gateway.
	Gateway bool
}

// Update is a change to the resources of one type.
type Update struct {
	TypeURL string
	Set     []*xds.Resource
	Removed []string
	// Replace tells that Set is everything there is (state of the world, last-good file).
	Replace bool
}

// entry is an accepted resource.
type entry[T any] struct {
	raw  *xds.Resource
	at   time.Time // when it was accepted
	made T
}

// store is the accepted resources of one type.
type store[T any] struct {
	typeURL string
	compile func([]byte) (T, error)
	byName  map[string]*entry[T]
}

// Compiler keeps what was accepted and builds Views from it.
type Compiler struct {
	set         Settings
	clusters    store[*cluster]
	assignments store[[]*config.Endpoint]
	listeners   store[*listener]
	tables      store[*table]
	secrets     store[*config.Secret]

	view   *config.View
	waits  map[waitKey]wait // names that something waits for
	memoC  map[string]clusterMemo
	memoL  map[string]listenerMemo
	memoT  map[string]*table // what View.Routes was made of
	absent map[waitKey]bool  // names that the server says do not exist
}

type waitKey struct{ typeURL, name string }

// New returns a compiler without resources. Its first View is empty.
func New(s Settings) *Compiler {
	c := &Compiler{set: s, view: &config.View{}, waits: map[waitKey]wait{},
		memoC: map[string]clusterMemo{}, memoT: map[string]*table{}, memoL: map[string]listenerMemo{}, absent: map[waitKey]bool{}}
	c.clusters = newStore(xds.ClusterType, c.cluster)
	c.assignments = newStore(xds.EndpointType, c.endpoints)
	c.listeners = newStore(xds.ListenerType, c.listener)
	c.tables = newStore(xds.RouteType, c.routes)
	c.secrets = newStore(xds.SecretType, c.secret)
	return c
}

func newStore[T any](typeURL string, f func([]byte) (T, error)) store[T] {
	return store[T]{typeURL: typeURL, compile: f, byName: map[string]*entry[T]{}}
}

// View is the latest configuration; never nil.
func (c *Compiler) View() *config.View { return c.view }

// Apply takes an update. It returns the View to publish (the same pointer as
// before if nothing changed) and what was refused. now is the time of the call.
func (c *Compiler) Apply(u Update, now time.Time) (*config.View, []Refusal) {
	var refused []Refusal
	changed := false
	switch u.TypeURL {
	case xds.ClusterType:
		changed, refused = c.clusters.apply(u, now)
	case xds.EndpointType:
		changed, refused = c.assignments.apply(u, now)
	case xds.ListenerType:
		changed, refused = c.listeners.apply(u, now)
	case xds.RouteType:
		changed, refused = c.tables.apply(u, now)
	case xds.SecretType:
		changed, refused = c.secrets.apply(u, now)
	default:
		return c.view, []Refusal{{TypeURL: u.TypeURL, Reason: "resource type not supported"}}
	}
	if c.noteAbsent(u) || changed {
		c.assemble(now)
	}
	return c.view, refused
}

// noteAbsent remembers names that the server says do not exist: nothing waits for them.
func (c *Compiler) noteAbsent(u Update) (changed bool) {
	for _, n := range u.Removed {
		k := waitKey{u.TypeURL, n}
		if _, waiting := c.waits[k]; waiting {
			changed = true
		}
		c.absent[k] = true
	}
	for _, r := range u.Set {
		delete(c.absent, waitKey{u.TypeURL, r.Name})
	}
	return changed
}

func (s *store[T]) apply(u Update, now time.Time) (changed bool, refused []Refusal) {
	keep := map[string]bool{}
	for _, r := range u.Set {
		keep[r.Name] = true
		if old := s.byName[r.Name]; old != nil && old.raw.Version == r.Version && string(old.raw.Body) == string(r.Body) {
			continue
		}
		made, err := s.make(r)
		if err != nil {
			refused = append(refused, Refusal{TypeURL: s.typeURL, Name: r.Name, Reason: err.Error()})
			continue
		}
		s.byName[r.Name] = &entry[T]{raw: r, at: now, made: made}
		changed = true
	}
	removed := u.Removed
	if u.Replace {
		for name := range s.byName {
			if !keep[name] {
				removed = append(removed, name)
			}
		}
	}
	for _, name := range removed {
		if _, ok := s.byName[name]; ok && !keep[name] {
			delete(s.byName, name)
			changed = true
		}
	}
	return changed, refused
}

// make compiles one resource. A panic would be a bug of ours, but the input comes from the network: it
// must cost this resource, not the proxy.
func (s *store[T]) make(r *xds.Resource) (made T, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("internal error: %v", p)
		}
	}()
	if r.TypeURL != s.typeURL {
		return made, fmt.Errorf("type %s, want %s", r.TypeURL, s.typeURL)
	}
	if len(r.Body) > MaxResourceBytes {
		return made, fmt.Errorf("%d bytes, at most %d", len(r.Body), MaxResourceBytes)
	}
	if made, err = s.compile(r.Body); err != nil {
		return made, err
	}
	if n := nameOf(any(made)); n != "" && n != r.Name {
		return made, fmt.Errorf("name %q inside differs from the resource's name", n)
	}
	return made, nil
}

// nameOf is the name inside a compiled resource, "" if it has none.
func nameOf(v any) string {
	switch x := v.(type) {
	case *cluster:
		return x.base.Name
	case *listener:
		return x.base.Name
	case *table:
		return x.made.Name
	case *config.Secret:
		return x.Name
	}
	return ""
}

// Accepted is one resource that serves, for dumps.
type Accepted struct {
	Resource *xds.Resource
	At       time.Time
}

// Resources lists the accepted resources of a type by name.
func (c *Compiler) Resources(typeURL string) []Accepted {
	switch typeURL {
	case xds.ClusterType:
		return c.clusters.list()
	case xds.EndpointType:
		return c.assignments.list()
	case xds.ListenerType:
		return c.listeners.list()
	case xds.RouteType:
		return c.tables.list()
	case xds.SecretType:
		return c.secrets.list()
	}
	return nil
}

func (s *store[T]) list() []Accepted {
	out := make([]Accepted, 0, len(s.byName))
	for _, e := range s.byName {
		out = append(out, Accepted{e.raw, e.at})
	}
	slices.SortFunc(out, func(a, b Accepted) int { return cmp.Compare(a.Resource.Name, b.Resource.Name) })
	return out
}
