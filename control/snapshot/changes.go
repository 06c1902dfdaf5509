package snapshot

import (
	"weft.mesh/weft/model"
)

// Change is one source object that came or changed, as the model objects it
// makes (a ServiceEntry makes a Service for each host), or that went (none).
type Change struct {
	Key     model.Key
	Objects []model.Object
}

// Changes is the difference of a World from the one before.
type Changes struct {
	// Keys are the objects that came, changed or went, sorted.
	Keys []model.Key
	// Hosts are the services whose definition, identities or endpoints changed.
	Hosts map[string]bool
	// Namespaces are those of the changed objects.
	Namespaces map[string]bool
	// EndpointsOnly tells that nothing but endpoints (and workloads) changed, and
	// none that listeners or clusters hold.
	EndpointsOnly bool
}

// Empty tells whether nothing changed.
func (c *Changes) Empty() bool { return len(c.Keys) == 0 }
