package corpus

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"weft.mesh/weft/proxy/proxytest"
)

// lanes is how many cases run at the same time. Each lane has a backend of its own, so
// that it is known which case caused what arrives there.
const lanes = 12

// minimum is how many cases the corpus has at least.
const minimum = 300

// lane is where one case at a time runs.
type lane struct {
	backend *backend
	ports   map[string]int // by listener
}

// listeners that weft-proxy has in each lane.
var listeners = []string{"plain", "old", "guarded", "strict", "h2", "up2"}

const guard = `{name: envoy.filters.http.rbac, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC,
      rules: {action: DENY, policies: {admin: {permissions: [{url_path: {path: {prefix: /admin}}}], principals: [{any: true}]}}}}},`

// listenerConfig makes a listener: plain has Envoy's defaults, old takes HTTP/1.0 too, guarded denies
// /admin with the path normalisation that is Istio's default (BASE), strict does so with its
// strongest (DECODE_AND_MERGE_SLASHES), h2 takes HTTP/2 by prior knowledge, up2 speaks it with the upstream.
func listenerConfig(kind string, lane, port int) string {
	codec, extra, filters, cluster := "HTTP1", "", "", "backend"
	switch kind {
	case "h2":
		codec = "HTTP2"
	case "up2":
		cluster = "second"
	case "old":
		extra = "http_protocol_options: {accept_http_10: true},"
	case "guarded":
		extra, filters = "normalize_path: true,", guard
	case "strict":
		extra, filters = "normalize_path: true, merge_slashes: true, path_with_escaped_slashes_action: UNESCAPE_AND_FORWARD,", guard
	}
	return fmt.Sprintf(`{'@type': type.googleapis.com/envoy.config.listener.v3.Listener, name: %s-%d, traffic_direction: OUTBOUND,
  address: {socket_address: {address: 127.0.0.1, port_value: %d}},
  filter_chains: [{filters: [{name: envoy.filters.network.http_connection_manager, typed_config: {
    '@type': type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager,
    stat_prefix: corpus, codec_type: %s, request_headers_timeout: 1.5s, request_timeout: 2s, upgrade_configs: [{upgrade_type: websocket}], %s
    route_config: {name: r, virtual_hosts: [{name: all, domains: ['*'], routes: [{match: {prefix: /}, route: {cluster: %s-%d, timeout: 3s}}]}]},
    http_filters: [%s {name: envoy.filters.http.router, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}]}}]}]}`,
		kind, lane, port, codec, extra, cluster, lane, filters)
}

// clusterConfigs are the same endpoint over HTTP/1 and over HTTP/2.
func clusterConfigs(lane, port int) []string {
	const h2 = `, typed_extension_protocol_options: {envoy.extensions.upstreams.http.v3.HttpProtocolOptions: {
    '@type': type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions, explicit_http_config: {http2_protocol_options: {}}}}`
	var all []string
	for _, c := range []struct{ name, options string }{{"backend", ""}, {"second", h2}} {
		all = append(all, fmt.Sprintf(`{'@type': type.googleapis.com/envoy.config.cluster.v3.Cluster, name: %s-%d, type: STATIC, connect_timeout: 20s,
  load_assignment: {cluster_name: x, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: %d}}}}]}]}%s}`,
			c.name, lane, port, c.options))
	}
	return all
}

// startWeft runs a proxy with all lanes.
func startWeft(t *testing.T) []*lane {
	t.Helper()
	var all []*lane
	var config []string
	for i := range lanes {
		l := &lane{backend: startBackend(t), ports: map[string]int{}}
		config = append(config, clusterConfigs(i, l.backend.port())...)
		for _, kind := range listeners {
			l.ports[kind] = proxytest.Port(t)
			config = append(config, listenerConfig(kind, i, l.ports[kind]))
		}
		all = append(all, l)
	}
	proxytest.NewMesh(t).Start(proxytest.Options{Name: "corpus", Config: strings.Join(config, "\n---\n")})
	return all
}

// each runs f for every case, one per lane at a time.
func each(cases []*testCase, ls []*lane, f func(c *testCase, l *lane)) {
	work := make(chan *testCase)
	var wg sync.WaitGroup
	for _, l := range ls {
		wg.Go(func() {
			for c := range work {
				f(c, l)
			}
		})
	}
	for _, c := range cases {
		work <- c
	}
	close(work)
	wg.Wait()
}

func TestCorpus(t *testing.T) {
	cases := load(t)
	if len(cases) < minimum {
		t.Errorf("%d cases, want at least %d", len(cases), minimum)
	}
	problems := map[*testCase][]string{}
	var mu sync.Mutex
	each(cases, startWeft(t), func(c *testCase, l *lane) {
		var p []string
		// What the machine, busy with something else, was late with comes when there is more time. What must not get through
		// and did is a failure at once: more time does not mend it.
		for _, slower := range []time.Duration{1, 5, 25} {
			l.backend.patient(slower)
			var harm bool
			if p, harm = runCase(c, l); len(p) == 0 || harm {
				break
			}
			t.Logf("%s/%s with %d times the time: %q", c.file, c.name, slower, p)
			time.Sleep(aftermath * slower) // what this attempt has sent may still be on its way
		}
		mu.Lock()
		defer mu.Unlock()
		problems[c] = p
	})
	for _, c := range cases {
		t.Run(c.file+"/"+c.name, func(t *testing.T) {
			for _, p := range problems[c] {
				t.Error(p)
			}
		})
	}
}

// runCase says what is wrong with the outcome of a case, and whether something got through that must not.
func runCase(c *testCase, l *lane) (problems []string, harm bool) {
	complain := func(format string, args ...any) { problems = append(problems, fmt.Sprintf(format, args...)) }
	l.backend.begin(c)
	var s seen
	if c.http2() {
		s = talk2(l.ports["h2"], c, patience)
	} else {
		want := len(c.statuses)
		if c.end == "close" {
			want = 1 << 20 // wait for the end
		}
		s = talk(l.ports[c.on], c, want, patience)
	}
	if c.http2() || slices.Contains(c.upstream, "incomplete") {
		time.Sleep(l.backend.wait(aftermath))
	}
	all := l.backend.end()
	if s.err != nil {
		complain("the client cannot read the answer: %v, after %q", s.err, s.raw)
	}
	if !slices.Equal(s.statuses, c.statuses) && !cutEarly(c, s) || s.end != c.end {
		complain("the client saw %v %s, want %v %s: %.300q", s.statuses, s.end, c.statuses, c.end, s.raw)
	}
	if c.body != nil && s.body != *c.body {
		complain("the client got the body %.100q, want %.100q", s.body, *c.body)
	}
	for _, h := range c.hidden {
		if bytes.Contains(bytes.ToLower(s.raw), []byte(strings.ToLower(h))) {
			complain("%q reached the client: %q", h, s.raw)
			harm = true
		}
	}
	more, through := checkUpstream(c, all)
	return append(problems, more...), harm || through
}

// aftermath is how long the proxy may go on with a request after its client was told that it failed.
const aftermath = 40 * time.Millisecond

// cutEarly tells whether a response that should break off did so before its head had left.
func cutEarly(c *testCase, s seen) bool {
	n := len(s.statuses)
	return s.err == nil && n+1 == len(c.statuses) && strings.HasSuffix(c.statuses[n], "/cut") && slices.Equal(s.statuses, c.statuses[:n])
}

// checkUpstream compares what reached the upstream with what the case says; harm: more than it allows did.
func checkUpstream(c *testCase, all [][]byte) (problems []string, harm bool) {
	complain := func(format string, args ...any) { problems = append(problems, fmt.Sprintf(format, args...)) }
	whole, rest := arrived(all)
	want := slices.Clone(c.upstream)
	part := slices.Contains(want, "incomplete")
	want = slices.DeleteFunc(want, func(s string) bool { return s == "nothing" || s == "incomplete" })
	if len(want) == 1 && strings.HasPrefix(want[0], "perhaps ") {
		part = true
		if want[0] = strings.TrimPrefix(want[0], "perhaps "); len(whole) == 0 {
			want = nil
		}
	}
	if !slices.Equal(whole, want) && len(whole)+len(want) > 0 {
		complain("the upstream got %.500q, want %.500q", whole, want)
		harm = len(whole) > len(want) || !slices.Equal(whole, want[:len(whole)])
	}
	if rest != "" && !(part && rest == "incomplete") {
		complain("the upstream got something %s: %.500q", rest, all)
		harm = harm || rest != "incomplete"
	}
	got := bytes.ToLower(bytes.Join(all, nil))
	for _, s := range c.absent {
		if bytes.Contains(got, []byte(strings.ToLower(s))) {
			complain("%q reached the upstream: %q", s, all)
			harm = true
		}
	}
	for _, s := range c.present {
		if !bytes.Contains(got, []byte(strings.ToLower(s))) {
			complain("%q did not reach the upstream: %q", s, all)
		}
	}
	if c.conns >= 0 && len(all) != c.conns {
		complain("%d upstream connections were used, want %d", len(all), c.conns)
	}
	return problems, harm
}
