// Package console serves the web console of a mesh: a page for people, and the
// JSON that the page is made of.
//
// It owns the endpoints below /api/v1, the built page (dist, made from the
// folder console by make console and kept in the repository, so that building
// Weft needs no Node), and the looking: while somebody watches, every proxy's
// metrics are read once a second into a [traffic.Store]; when nobody does,
// nothing is read.
//
// It only reads. It promises that a page of another site, or another name for
// this machine, gets nothing: it answers to localhost, 127.0.0.1 and [::1]
// only, sends no CORS header, and takes no method but GET and HEAD. It does not
// know users: who can connect to its address can read it. That is why its
// address is on loopback, and why values that look secret are hidden.
package console
