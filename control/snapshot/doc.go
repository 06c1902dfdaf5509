// Package snapshot holds the World: the whole mesh as one immutable, versioned
// and indexed value.
//
// It owns the indexes (services by host and namespace, workloads by address and
// label, endpoints of services, which rules and policies apply to whom), the
// addresses of services that have none of their own, and the coalescing of
// changes. [Build] is a pure function from a World and changes to the next
// World, which shares everything that did not change; [Store] owns the queue
// and the clock.
//
// It does no I/O, knows no xDS and takes objects as valid: convert has refused
// bad ones. Everything it returns is shared and must not be modified.
package snapshot
