// Package corpus holds what attackers send to make two HTTP parsers disagree, and what the proxy makes of it.
//
// testdata/*.txt holds the cases: exact bytes (or HTTP/2 frames), what the client must see, and exactly which
// requests the upstream must see. TestCorpus runs each against a whole proxy and a backend that keeps every byte;
// what arrives there must be read in the same way by the strict reference parser of this package and by
// net/http. TestPeers runs the same against nginx, HAProxy and Envoy, configured alike, and keeps their outcomes in
// testdata/differential.golden; a case in which the proxy is laxer than the strictest of them says why. Laxer is who
// lets more requests through to the upstream or, of a case about a response, delivers that or what is hidden in it.
//
// A case is:
//
//	== name
//	on: listener              plain (default), old, guarded or strict: see listenerConfig
//	send: bytes               with escapes \r \n \t \0 \\ \xHH and \(text*count); a second send follows after a pause, or after the
//	                          response if that is early
//	h: name=value             instead of send: a field of an HTTP/2 HEADERS frame
//	data: bytes               a DATA frame
//	trailer: name=value       a field of a last HEADERS frame
//	response: bytes           what the backend answers to the first request; default "200" with body "ok"
//	rh: name=value            the same over HTTP/2, on the listener up2: a field of the response's HEADERS frame;
//	                          rinterim of one before it, rtrailer of one after rdata
//	rend: what                open, reset, goaway, push or close instead of END_STREAM on the last frame
//	then: close|early|pause   the backend closes after the response; it responds as soon as it has the head; an HTTP/2
//	                          client pauses after the head
//	client: statuses end      what the client sees: statuses in order, then keep or close (HTTP/2: a status, reset or goaway)
//	body: bytes               of the last response
//	upstream: request         one line each: method target host framing "body"; or nothing, or incomplete: no whole request;
//	                          "perhaps" and a request if it is a race between two peers whether it gets that far
//	absent: text              must not be among the bytes that reach the upstream (any case)
//	present: text             must be
//	hidden: text              must not be among the bytes that reach the client
//	conns: n                  how many upstream connections were used
//	note: text                the rule, and its source
//	laxer: text               why we take what the strictest peer does not
package corpus
