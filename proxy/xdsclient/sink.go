package xdsclient

import "weft.mesh/weft/xds"

// Update is a change to the resources of one type.
type Update struct {
	TypeURL string
	Set     []*xds.Resource
	Removed []string
}

// Sink takes resources. All calls come from the goroutine of [Client.Run].
type Sink interface {
	// Apply takes an update. It returns the names it refused and the text
	// that tells why; both empty if it took everything.
	Apply(u Update) (refused []string, reason string)
	// Wanted lists the names of a type to subscribe to. It is asked for the
	// types that are not wildcards: endpoints, routes, secrets.
	Wanted(typeURL string) []string
	// Commit publishes what the Apply calls since the last Commit amount to.
	Commit()
	// Accepted lists what was taken of a type, for the last-good file and for patches.
	Accepted(typeURL string) []*xds.Resource
}

// wildcard tells whether everything of a type is asked for.
func wildcard(typeURL string) bool {
	return typeURL == xds.ClusterType || typeURL == xds.ListenerType || typeURL == xds.NameTableType
}

// order is the place of a type in make-before-break order; names come after what is at their addresses.
func order(typeURL string) int {
	for i, t := range xds.PushOrder {
		if t == typeURL {
			return i
		}
	}
	return len(xds.PushOrder)
}
