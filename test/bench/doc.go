// Bench measures what weft-proxy costs, next to HAProxy, nginx and Envoy doing
// the same work in the same run on the same machine.
//
//	go run ./test/bench -peers all -seconds 0.7  # everything, five rounds; make bench has nine longer ones and keeps the result
//	go run ./test/bench -quick -cases h1         # a look
//	go run ./test/bench -peers haproxy,envoy@2,weft@1 -cases mtls -json out.json
//	go run ./test/bench -gate auto               # against the merge base with main; exit code 1 on a regression
//
// The figure of merit is CPU time per request: the difference of the sum of
// /proc/PID/task/*/schedstat over all processes of the proxy, divided by the
// requests that got a right answer meanwhile. Load generator and backend run in
// this program and share the processors with the proxy, so throughput and latency
// say how proxies compare, not what the machine can do; the CPU time of the
// generator and the backend is not counted.
//
// Every case is run in rounds (peers A…Z, then Z…A, and so on), each after a quarter of a
// second of the same load, with new processes after every three. What is printed in the end
// is the median of the rounds with the smallest and largest, and the
// median of the ratios to HAProxy in the same round: on a machine that others
// use, only the ratios are worth much.
//
// What is not verified is not measured, and fails the run. Before a proxy is measured
// it must have forwarded a request with the right body and with the header fields
// that every proxy has to add (a request ID, the scheme, trace context, over mTLS the
// client's certificate); its mTLS end must have refused plaintext, a client without a
// certificate and one with another identity, and have spoken TLS 1.3 with AES-128-GCM
// and a P-256 key. Every single response under load is compared with what the backend
// sends, and where a proxy keeps metrics, they must have counted all of them, on both
// ends. weft-proxy gets what our own control plane translates for its workload in a mesh
// of a hundred services, over xDS, and its identity from a certificate authority
// in this program, with a join token, as in a mesh.
//
// Latencies of the open loop count from the time at which a request should
// have been sent, not from the time at which it was (no coordinated omission).
// The peer "direct" is no proxy: the latency that is not a proxy's.
//
// It listens on 127.0.0.1 only and ends, by its process ID, whatever it started.
package main
