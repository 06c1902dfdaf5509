package kubetest

import (
	"strings"
	"testing"
	"time"

	"weft.mesh/weft/test/kubernetes/load"
)

// Load is [load.Load] from the test's own process, as a client outside the cluster.
type Load load.Load

// Start begins, and returns the function that ends it: no new requests, wait for those under way.
func (l Load) Start(t testing.TB) (stop func() *load.Result) {
	r := load.Load(l).Start(t.Context())
	t.Cleanup(func() { r.Stop() })
	return r.Stop
}

// Lossless fails the test if a request was lost, or if fewer were sent than the rate and the time allow
// (half, on a busy machine): a load that was not there proves nothing.
func Lossless(t testing.TB, what string, r *load.Result, rate int, during time.Duration) {
	t.Helper()
	t.Logf("%s: %s", what, r)
	if r.Lost() > 0 {
		t.Errorf("%s: %d of %d requests were lost", what, r.Lost(), r.Sent)
	}
	Enough(t, what, r, rate, during)
}

// Enough fails the test if the load was not there.
func Enough(t testing.TB, what string, r *load.Result, rate int, during time.Duration) {
	t.Helper()
	if want := int(during.Seconds() * float64(rate) / 2); r.Sent < want {
		t.Errorf("%s: only %d requests in %s: the machine is too busy for a rate of %d/s", what, r.Sent, during, rate)
	}
}

// MissingParts judges Bookinfo's page for [Load]: it has status 200 also when a service behind it failed, and says so in a sentence.
func MissingParts(page string) string {
	for line := range strings.Lines(page) {
		if strings.Contains(line, "unavailable") {
			return strings.TrimSpace(line)
		}
	}
	return ""
}
