package proxytest

import (
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"weft.mesh/weft/proxy/server"
	"weft.mesh/weft/xds"
)

// load sends requests over kept connections until stopped and counts what fails.
type load struct {
	total, failed atomic.Int64
	first         atomic.Value // the first failure
	stop          func()
}

func startLoad(t testing.TB, port, clients int) *load {
	l := &load{}
	end := make(chan struct{})
	tr := &http.Transport{MaxIdleConnsPerHost: clients}
	c := &http.Client{Transport: tr, Timeout: 10 * time.Second}
	var wg sync.WaitGroup
	for range clients {
		wg.Go(func() {
			for {
				select {
				case <-end:
					return
				default:
				}
				l.total.Add(1)
				if err := once(c, port); err != nil {
					l.failed.Add(1)
					l.first.CompareAndSwap(nil, err.Error())
				}
			}
		})
	}
	l.stop = sync.OnceFunc(func() { close(end); wg.Wait(); tr.CloseIdleConnections() })
	t.Cleanup(l.stop)
	return l
}

func once(c *http.Client, port int) error {
	resp, err := c.Get("http://127.0.0.1:" + strconv.Itoa(port) + "/")
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != 200 {
		err = fmt.Errorf("status %d: %s", resp.StatusCode, b)
	}
	return err
}

func (l *load) check(t *testing.T) {
	t.Helper()
	l.stop()
	if n := l.failed.Load(); n > 0 || l.total.Load() == 0 {
		t.Errorf("%d of %d requests failed, the first with %v", n, l.total.Load(), l.first.Load())
	}
}

func TestChangesUnderLoadLoseNoRequest(t *testing.T) {
	app := StartApp(t, "app")
	p := startPair(t, pairOptions{app: app.Port})
	l := startLoad(t, p.port, 4)
	for i := range 60 {
		switch i % 4 {
		case 0: // routes
			p.caller.Push(routes(fmt.Sprintf(`{match: {prefix: /v%d}, direct_response: {status: 204}}, {match: {prefix: /}, route: {%s}}`, i, toAPI)))
		case 1: // a setting of the cluster
			p.caller.Push(strings.Replace(callerCluster, "connect_timeout: 20s", fmt.Sprintf("connect_timeout: %d.5s", 20+i%3), 1))
		case 2: // the listener: its chain is another, so connections are drained
			p.caller.Push(strings.Replace(callerListener, "stat_prefix: out", fmt.Sprintf("stat_prefix: out%d", i), 1))
		case 3: // a cluster that comes, with its endpoints, and routes that move there
			name := fmt.Sprintf("c%d", i)
			p.caller.Push(strings.ReplaceAll(callerCluster, "outbound|80||api.default.svc.cluster.local", name) + "---" +
				routes(`{match: {prefix: /}, route: {cluster: `+name+`}}`))
		}
		before := l.total.Load()
		Until(t, "some requests", func() bool { return l.total.Load() > before+20 })
	}
	l.check(t)
	if got := metric(p.caller.Get("/stats/prometheus"), "weft_proxy_xds_nacks_total"); strings.Contains(got, " 1") {
		t.Error(got)
	}
}

func TestAResourceThatCannotBeHonouredIsNACKedAndTheOldOneServes(t *testing.T) {
	app := StartApp(t, "app")
	p := startPair(t, pairOptions{app: app.Port})
	n := 0
	var nack string
	for nack == "" || n == 0 { // skip the ACKs so far
		if nack, n = p.caller.ADS.WaitACK(n, xds.RouteType); nack == "" {
			break
		}
	}
	p.caller.Push(routes(`{match: {prefix: /, dynamic_metadata: [{filter: x, path: [{key: k}], value: {present_match: true}}]}, route: {` + toAPI + `}}`))
	nack, _ = p.caller.ADS.WaitACK(n, xds.RouteType)
	if !strings.Contains(nack, `RDS "80"`) || !strings.Contains(nack, "virtual_hosts[0].routes[0].match.dynamic_metadata") {
		t.Errorf("NACK = %q", nack)
	}
	if s, _, _ := Call(t, "GET", p.port, "/"); s != 200 {
		t.Errorf("after the NACK: %d", s)
	}
	if !strings.Contains(p.caller.Get("/stats/prometheus"), "weft_proxy_config_refused 1") || !strings.Contains(p.caller.Get("/config_dump"), "dynamic_metadata") {
		t.Error("the refusal is not shown")
	}
}

func TestAProxyServesItsLastGoodConfigurationWithoutAControlPlane(t *testing.T) {
	app := StartApp(t, "app")
	p := startPair(t, pairOptions{app: app.Port})
	state := p.caller.StateDir()
	p.caller.Stop()
	again := p.mesh.StartCold(Options{Name: "web", Config: "", Change: func(s *server.Settings) {
		s.XDS, s.StateDir = "127.0.0.1:1", state
	}})
	again.WaitReady()
	if s, _, _ := Call(t, "GET", p.port, "/"); s != 200 {
		t.Errorf("from the last-good file: %d", s)
	}
}

func TestLosingTheControlPlaneLosesNoRequest(t *testing.T) {
	app := StartApp(t, "app")
	p := startPair(t, pairOptions{app: app.Port})
	l := startLoad(t, p.port, 2)
	for range 5 {
		p.caller.ADS.Cut()
		p.callee.ADS.Cut()
		before := l.total.Load()
		Until(t, "some requests", func() bool { return l.total.Load() > before+50 })
	}
	l.check(t)
}

func TestADrainFinishesWhatRunsAndTellsClientsToGo(t *testing.T) {
	app := StartApp(t, "app")
	p := startPair(t, pairOptions{app: app.Port})
	entered, release := make(chan struct{}), make(chan struct{})
	app.Handle(func(w http.ResponseWriter, _ *http.Request) {
		close(entered)
		<-release
		fmt.Fprint(w, "done")
	})
	type answer struct {
		status int
		body   string
		err    error
	}
	got := make(chan answer, 1)
	go func() {
		s, _, b, err := TryCall("GET", p.port, "/")
		got <- answer{s, b, err}
	}()
	<-entered
	p.callee.Terminate()
	Until(t, "draining", func() bool { ok, why := p.callee.Ready(); return !ok && why == "draining" })
	select {
	case <-p.callee.Done():
		t.Fatal("ended while a request was running")
	default:
	}
	close(release)
	if a := <-got; a.err != nil || a.status != 200 || a.body != "done" {
		t.Errorf("the running request: %+v", a)
	}
	<-p.callee.Done()
	if _, _, _, err := TryCall("GET", p.vars["In"].(int), "/"); err == nil {
		t.Error("the socket is still open")
	}
}

func TestTheCalleesRestartLosesNoRequestWhenItIsAnnounced(t *testing.T) {
	one, two := StartApp(t, "one"), StartApp(t, "two")
	p := startPair(t, pairOptions{app: one.Port})
	vars := map[string]any{}
	for k, v := range p.vars {
		vars[k] = v
	}
	vars["In"], vars["App"] = Port(t), two.Port
	next := p.mesh.Start(Options{Name: "api", Config: calleeCluster + "\n---\n" + calleeListenerHead + calleeHCM, Vars: vars})
	l := startLoad(t, p.port, 4)
	Until(t, "load", func() bool { return l.total.Load() > 50 })
	p.caller.Push(strings.ReplaceAll(callerEndpoints, "{{.In}}", fmt.Sprint(vars["In"]))) // EDS first
	p.callee.Terminate()                                                                  // then SIGTERM, without waiting for the push to arrive
	<-p.callee.Done()
	before := two.Count()
	Until(t, "load on the new endpoint", func() bool { return two.Count() > before+50 })
	l.check(t)
	_ = next
}
