// Package soak lets weft-proxy run for a long time under mixed traffic, faults and
// configuration that changes every second, and believes nothing: every byte of every response is
// derived from its request and compared, and a request may only fail if a fault explains it.
//
// Three proxies built with the race detector run as processes of their own: a gateway, and a pair of
// sidecars with mTLS between them. They take their configuration over xDS from the product's own
// ADS server and certificates that live for a minute from a fake certificate service.
//
//	make soak SOAKTIME=1h SOAKRATE=60
//
// WEFT_SOAK_TIME (default 20s) is how long traffic runs, WEFT_SOAK_RATE (default 60) how many
// operations begin each second, WEFT_SOAK_SEED repeats a run's random choices, and WEFT_SOAK_PROXY names a program that was
// built before (go build -race -o FILE ./cmd/weft-proxy). The last line begins with "soak:".
//
// # What may fail
//
// Traffic on the paths /calm/ and the like meets changing routes, clusters, endpoints, secrets and a
// control plane that goes away, but no fault of an upstream: all of it must succeed. Traffic on /flaky/ may fail
// while its upstream is down, and 2 s after. A tunnel that lasts longer than the drain of the listener that it came by
// may be cut with it. An operation that asks the upstream for a fault must end as that fault ends. Whatever fails or
// succeeds, a wrong byte ends the test as failed.
package soak
