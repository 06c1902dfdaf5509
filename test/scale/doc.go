// Command scale measures what one control plane costs in a large mesh: a real
// API server with its etcd, `weft control-plane --kubernetes` as a process of its
// own, and simulated proxies in this process, all on loopback, without root.
//
// A simulated proxy is a real client of incremental ADS over mutual TLS: it has a
// certificate of its workload, follows clusters to endpoints and listeners to
// routes as weft-proxy does, acknowledges, keeps versions over reconnects, and
// backs off like it. It does not compile what it gets. The certificates are made
// here with the mesh's root, so issuing them is not measured.
//
// What counts is the CPU time of the control plane's process, user and system,
// between a write to the API server and the last acknowledgement. Latencies
// include this process and the API server, which share the machine.
package main
