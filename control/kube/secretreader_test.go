package kube

import (
	"context"
	"strings"
	"testing"
	"time"
)

func TestWhoMayReadSecretsIsReviewed(t *testing.T) {
	s, c, _, _ := start(t)
	allowed := func(user, ns, verb, resource string) bool {
		if ns != "edge" || verb != "list" || resource != "/secrets" {
			t.Errorf("asked whether %s may %s %s in %s", user, verb, resource, ns)
		}
		return user == "system:serviceaccount:edge:gw"
	}
	s.Access(allowed)
	r := NewSecretReader(c)
	now := time.Now()
	r.now = func() time.Time { return now }
	may := func(name string, want bool, reviews int) {
		t.Helper()
		got, err := r.MayRead(context.Background(), "edge", name)
		if n := len(s.Writes()); err != nil || got != want || n != reviews {
			t.Errorf("%s: %t, %v after %d reviews; want %t after %d", name, got, err, n, want, reviews)
		}
	}
	may("gw", true, 1)
	may("other", false, 2)
	may("gw", true, 2)
	now = now.Add(keepAccess)
	s.Access(nil)
	may("gw", false, 3)
	s.Access(allowed)
	now = now.Add(keepAccess)
	may("gw", true, 4)
	// While the API server gives no answer, the last one counts for an hour.
	s.Down()
	now = now.Add(staleAccess - time.Second)
	may("gw", true, 4)
	now = now.Add(time.Second)
	for _, name := range []string{"gw", "unknown"} {
		if got, err := r.MayRead(context.Background(), "edge", name); got || err == nil || !strings.Contains(err.Error(), "service account "+name) {
			t.Errorf("%s: %t, %v without an API server", name, got, err)
		}
	}
	s.Up(t)
	may("gw", true, 5)
	for range maxAccounts + 1 {
		now = now.Add(time.Nanosecond)
		r.keep(account{"n", now.String()}, true)
	}
	if n := len(r.answers); n > maxAccounts {
		t.Errorf("%d answers are kept", n)
	}
}
