// Package xdsclient takes the proxy's configuration from a control plane over
// one incremental ADS stream (envoy.service.discovery.v3, DeltaAggregatedResources).
//
// It owns the protocol: subscriptions, versions, nonces, ACK and NACK, reconnecting with
// jittered back-off, and the last-good file on disk. It knows names, versions
// and bytes; what they mean is the [Sink]'s business, which says what it refuses
// and which names it wants.
//
// The protocol is a state machine without goroutines, sockets or clock
// (session.Step); [Client.Run] is the one loop that feeds it. Responses that
// have already arrived are applied together in make-before-break order: clusters, endpoints, listeners,
// routes, secrets, and removals of clusters last; then the Sink commits once.
//
// Losing the stream changes nothing: what was accepted stays, and the next
// stream begins with the versions that are held, so that only what changed is sent.
package xdsclient
