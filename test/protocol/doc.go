// Package protocol is the proof that weft-proxy's engine keeps to its protocols and
// cannot be hurt through them. Its tests run the real program, with the real control
// protocol, and talk to it over loopback: h2spec in strict mode, WebSocket over every
// transport, streams that a slow reader holds back, thousands of idle connections,
// and a set of attacks beside good traffic. Figures are in the test log (-v).
//
// WEFT_IDLE_CONNECTIONS sets how many idle connections are opened; default 2,000.
package protocol
