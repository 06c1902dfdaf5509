// Package telemetry counts and logs what the proxy does: counters and histograms
// that cost a few atomic additions, Istio's standard metrics, their text exposition, and access logs
// in Envoy's format language.
//
// Recording allocates nothing once a series exists. The number of series is bounded;
// what goes beyond is counted, not kept. Access log lines are formatted on the caller's
// goroutine into a bounded buffer that [AccessLogs.Run] writes; when the
// file is too slow, lines are dropped and counted, requests never wait.
// Text from requests is escaped, so that no header can forge a line or a label.
// Everything is safe for concurrent use.
package telemetry
