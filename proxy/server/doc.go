// Package server puts a proxy together: identity, xDS client, compiler,
// upstreams, listeners, telemetry and admin. It is wiring; nothing imports it but programs and end-to-end tests.
//
// [New] checks the settings and opens the admin sockets. [Server.Run] owns every
// goroutine: it serves until its context ends, then drains (readiness fails, connections
// are told to end, new ones are still served for a while) and stops everything.
//
// Who owns what while it runs: the configuration's goroutine is xdsclient's
// (resources → compile → publish) plus one timer for waits that run out, behind one mutex;
// the data path only reads the published View.
package server
