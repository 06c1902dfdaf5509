// Package translate turns a World into the xDS resources that each node gets.
//
// It is pure: (World, Node) in, Envoy v3 messages out, with Istio's names and
// semantics; no I/O, no clock, no randomness. One file makes one kind of
// output. What it emits is the subset of Envoy that the design note lists,
// which both weft-proxy and a real Envoy take; filters of Istio's own
// (istio.*) go to weft-proxy only.
//
// [Snapshot] implements xds.Snapshot. Resources are encoded once and shared:
// proxies that need the same content get the same *xds.Resource. Answers are
// kept by their inputs and carried to the next Snapshot ([Snapshot.Next]), so
// that a change costs what depends on it. Safe for concurrent use.
//
// It takes objects as valid. What contradicts itself only in combination (a
// route to a missing service or subset) becomes what Istio makes of it: a
// reference to a cluster that does not exist, which answers 503.
package translate
