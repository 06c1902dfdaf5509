package translate

import (
	"sync"
	"weak"

	"weft.mesh/weft/xds"
)

// contents finds resources by what is in them, as long as anybody has them: of a mesh of a thousand services each change
// of a route makes tables of megabytes, and nobody but proxies that are late needs those before. Safe for concurrent use.
type contents struct {
	mu   sync.Mutex // protects the following
	live int        // entries after the last sweep
	m    map[contentKey]weak.Pointer[xds.Resource]
}

// contentKey finds a resource by its content.
type contentKey struct{ typeURL, name, version string }

// one returns the resource that there is with the content of r, which may be r.
func (c *contents) one(r *xds.Resource) *xds.Resource {
	k := contentKey{r.TypeURL, r.Name, r.Version}
	c.mu.Lock()
	defer c.mu.Unlock()
	if have := c.m[k].Value(); have != nil {
		return have
	}
	if c.m == nil {
		c.m = map[contentKey]weak.Pointer[xds.Resource]{}
	}
	c.m[k] = weak.Make(r)
	if len(c.m) > 2*c.live+sweepSlack {
		c.sweep()
	}
	return r
}

// sweep forgets where resources were that nobody has.
func (c *contents) sweep() {
	for k, p := range c.m {
		if p.Value() == nil {
			delete(c.m, k)
		}
	}
	c.live = len(c.m)
}
