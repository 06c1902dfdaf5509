package outlier

import (
	"testing"
	"time"

	"weft.mesh/weft/proxy/config"
)

// mesh is a detector of n hosts with a clock of its own.
type mesh struct {
	d     *Detector
	hosts []*Host
	now   time.Time
}

func newMesh(n int, c config.Outlier) *mesh {
	m := &mesh{d: New(c), now: time.Unix(1000, 0)}
	for range n {
		m.hosts = append(m.hosts, &Host{})
	}
	m.d.SetHosts(m.hosts)
	return m
}

func (m *mesh) report(host, times int, r Result) {
	for range times {
		m.d.Report(m.hosts[host], r, m.now)
	}
}

func (m *mesh) pass(d time.Duration) {
	m.now = m.now.Add(d)
	m.d.Tick(m.now)
}

func TestWhatEjects(t *testing.T) {
	five := config.Outlier{Consecutive5xx: 5, MaxEjectionPercent: 100}
	gateway := config.Outlier{ConsecutiveGateway: 3, MaxEjectionPercent: 100}
	split := config.Outlier{Consecutive5xx: 5, ConsecutiveLocal: 2, SplitLocal: true, MaxEjectionPercent: 100}
	codes := config.Outlier{Consecutive5xx: 2, ErrorCodes: []int{429}, MaxEjectionPercent: 100}
	type step struct {
		n int
		r Result
	}
	for name, c := range map[string]struct {
		cfg   config.Outlier
		steps []step
		want  bool
	}{
		"five 5xx in a row":                               {five, []step{{5, Result{Status: 500}}}, true},
		"four 5xx in a row":                               {five, []step{{4, Result{Status: 500}}}, false},
		"a success in between starts again":               {five, []step{{4, Result{Status: 500}}, {1, Result{Status: 200}}, {4, Result{Status: 500}}}, false},
		"a 404 is a success":                              {five, []step{{9, Result{Status: 404}}}, false},
		"connect failures count as 5xx":                   {five, []step{{5, Result{Local: true}}}, true},
		"500 is no gateway error":                         {gateway, []step{{9, Result{Status: 500}}}, false},
		"502, 503 and 504 are gateway errors":             {gateway, []step{{1, Result{Status: 502}}, {1, Result{Status: 503}}, {1, Result{Status: 504}}}, true},
		"a 500 ends a row of gateway errors":              {gateway, []step{{2, Result{Status: 502}}, {1, Result{Status: 500}}, {2, Result{Status: 502}}}, false},
		"a time-out is a gateway error":                   {gateway, []step{{3, Result{Local: true, Timeout: true}}}, true},
		"split: local failures have a limit of their own": {split, []step{{2, Result{Local: true}}}, true},
		"split: local failures are no 5xx":                {config.Outlier{Consecutive5xx: 2, SplitLocal: true, MaxEjectionPercent: 100}, []step{{9, Result{Local: true}}}, false},
		"split: an answer ends a row of local failures":   {split, []step{{1, Result{Local: true}}, {1, Result{Status: 500}}, {1, Result{Local: true}}}, false},
		"listed codes replace 5xx":                        {codes, []step{{2, Result{Status: 429}}}, true},
		"a 500 that is not listed is a success":           {codes, []step{{9, Result{Status: 500}}}, false},
		"limits of zero are off":                          {config.Outlier{MaxEjectionPercent: 100}, []step{{99, Result{Status: 503}}}, false},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMesh(2, c.cfg)
			for _, s := range c.steps {
				m.report(0, s.n, s.r)
			}
			if got := m.hosts[0].Ejected(); got != c.want {
				t.Errorf("ejected = %v, want %v", got, c.want)
			}
			if m.hosts[1].Ejected() {
				t.Error("the other host was ejected too")
			}
		})
	}
}

func TestEjectionShareIsBounded(t *testing.T) {
	for _, c := range []struct {
		hosts   int
		percent uint32
		want    int
	}{{2, 10, 0}, {2, 49, 0}, {2, 50, 1}, {10, 10, 1}, {3, 100, 3}, {11, 10, 1}, {20, 10, 2}} {
		m := newMesh(c.hosts, config.Outlier{Consecutive5xx: 1, MaxEjectionPercent: c.percent})
		for i := range m.hosts {
			m.report(i, 1, Result{Status: 500})
		}
		if got := m.d.Stats().Active; got != c.want {
			t.Errorf("%d hosts, at most %d %%: %d ejected, want %d", c.hosts, c.percent, got, c.want)
		}
	}
}

func TestEjectionTimeGrowsAndShrinks(t *testing.T) {
	m := newMesh(1, config.Outlier{Consecutive5xx: 1, Interval: 10 * time.Second, BaseEjection: 30 * time.Second, MaxEjection: 70 * time.Second, MaxEjectionPercent: 100})
	h := m.hosts[0]
	out := func() (d time.Duration) {
		m.report(0, 1, Result{Status: 500})
		for h.Ejected() {
			m.pass(10 * time.Second)
			d += 10 * time.Second
		}
		return d
	}
	if d := out(); d != 30*time.Second {
		t.Errorf("first ejection: %v, want 30s", d)
	}
	if d := out(); d != 60*time.Second {
		t.Errorf("second ejection: %v, want 60s", d)
	}
	if d := out(); d != 60*time.Second {
		t.Errorf("third ejection: %v, want 60s: the bound of 70s allows no third step", d)
	}
	for range 5 { // behaves for five intervals
		m.pass(10 * time.Second)
	}
	if d := out(); d != 30*time.Second {
		t.Errorf("ejection after a good time: %v, want 30s again", d)
	}
}

func TestOnlyTicksLetBack(t *testing.T) {
	m := newMesh(1, config.Outlier{Consecutive5xx: 1, BaseEjection: 30 * time.Second, MaxEjectionPercent: 100})
	m.report(0, 1, Result{Status: 500})
	m.report(0, 9, Result{Status: 200})
	if !m.hosts[0].Ejected() {
		t.Error("successes let it back")
	}
	m.pass(29 * time.Second)
	if !m.hosts[0].Ejected() {
		t.Error("let back too early")
	}
	m.pass(time.Second)
	if m.hosts[0].Ejected() {
		t.Error("still ejected after its time")
	}
}

func TestAHostThatLeavesIsNoLongerCounted(t *testing.T) {
	m := newMesh(2, config.Outlier{Consecutive5xx: 1, MaxEjectionPercent: 50})
	m.report(0, 1, Result{Status: 500})
	m.d.SetHosts([]*Host{m.hosts[1], {}})
	if m.hosts[0].Ejected() || m.d.Stats().Active != 0 {
		t.Error("a host that left is still ejected")
	}
	m.report(1, 1, Result{Status: 500})
	if !m.hosts[1].Ejected() {
		t.Error("its share was not given back")
	}
	m.report(0, 1, Result{Status: 500})
	if m.hosts[0].Ejected() {
		t.Error("a host of nobody was ejected")
	}
}

func TestReportDoesNotAllocate(t *testing.T) {
	m := newMesh(2, config.Outlier{Consecutive5xx: 5, MaxEjectionPercent: 100})
	if n := testing.AllocsPerRun(100, func() { m.report(0, 1, Result{Status: 200}); m.report(0, 1, Result{Status: 500}) }); n != 0 {
		t.Errorf("allocs = %v, want 0", n)
	}
}
