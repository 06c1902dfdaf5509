package network

import (
	"net/netip"
	"strings"
	"testing"
	"time"
)

func TestPool(t *testing.T) {
	p, err := NewPool(netip.MustParsePrefix("10.97.0.1/29"), time.Minute) // .2 to .6 for pods
	if err != nil {
		t.Fatal(err)
	}
	now := time.Unix(1000, 0)
	take := func(want string) {
		t.Helper()
		a, err := p.Take(now)
		if err != nil || a.String() != want {
			t.Fatalf("took %s, %v; want %s", a, err, want)
		}
	}
	take("10.97.0.2")
	take("10.97.0.3")
	p.Release(netip.MustParseAddr("10.97.0.2"), now)
	take("10.97.0.4") // not the released one
	take("10.97.0.5")
	take("10.97.0.6")
	if _, err := p.Take(now); err == nil || !strings.Contains(err.Error(), "4 in use, 1 released less than 1m0s ago") {
		t.Errorf("a full pool: %v", err)
	}
	now = now.Add(time.Minute)
	take("10.97.0.2")
	p.Release(netip.MustParseAddr("10.97.0.99"), now) // not ours: no effect
	if _, err := p.Take(now); err == nil {
		t.Error("took an address that is in use")
	}
}

func TestNewPoolRefuses(t *testing.T) {
	for name, prefix := range map[string]string{"IPv6": "fd00::1/64", "a range without room": "10.0.0.1/31", "everything": "10.0.0.1/4"} {
		t.Run(name, func(t *testing.T) {
			if _, err := NewPool(netip.MustParsePrefix(prefix), 0); err == nil {
				t.Error("accepted")
			}
		})
	}
}
