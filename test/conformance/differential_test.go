package conformance

import (
	"bufio"
	"fmt"
	"net"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"weft.mesh/weft/xds"
)

// exchange sends raw bytes over one connection and reads up to n responses. It
// returns their texts; "closed" or "silence" stands for what did not come.
func (p *proxies) exchange(address string, raw []byte, n int, pause time.Duration) []string {
	c, err := net.Dial("tcp", net.JoinHostPort(address, strconv.Itoa(p.port)))
	if err != nil {
		return []string{"refused"}
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(p.wait(1500 * time.Millisecond)))
	for i, part := range strings.Split(string(raw), pauseMark) {
		if i > 0 {
			time.Sleep(p.wait(pause))
		}
		if _, err := c.Write([]byte(part)); err != nil {
			break
		}
	}
	method, _, _ := strings.Cut(string(raw), " ")
	r := bufio.NewReader(c)
	var out []string
	for len(out) < n {
		m, err := readMessage(r, method)
		switch e, timeout := err.(net.Error); {
		case m != nil && m.first != "":
			out = append(out, m.text())
			if err != nil {
				return append(out, "cut")
			}
			if s := m.status(); s < 200 && s != 101 {
				n++ // an interim response
			}
			if m.status() == 101 {
				b := make([]byte, 16)
				k, _ := r.Read(b)
				return append(out, "upgraded "+string(b[:k]))
			}
		case timeout && e.Timeout():
			return append(out, "silence")
		default:
			return append(out, "closed")
		}
	}
	return out
}

// wait is how long to wait in this attempt at a comparison.
func (p *proxies) wait(d time.Duration) time.Duration { return d * max(p.slower, 1) }

// pauseMark in a request is where the client waits.
const pauseMark = "\x00pause\x00"

// closing are cases after which the backend's connection is gone.
var closing = regexp.MustCompile(`x-do: .*(reset|close|raw=|partial|sleep)|upgrade:|bad`)

// outcome is all that a request led to.
func (p *proxies) outcome(address string, c diffCase) string {
	if strings.Contains(c.raw, "x-do: reset") { // on a connection that was used before
		p.exchange(address, []byte(get("echo.test", "/")), 1, 0)
	}
	p.up.drain()
	raw := strings.ReplaceAll(c.raw, "PORT", fmt.Sprint(p.port))
	out := p.exchange(address, []byte(raw), max(c.responses, 1), 30*time.Millisecond)
	if c.requests > 0 { // mirrored and retried ones may still be on their way
		end := time.Now().Add(p.wait(500 * time.Millisecond))
		for p.up.arrived() < c.requests && time.Now().Before(end) {
			time.Sleep(time.Millisecond)
		}
		time.Sleep(p.wait(5 * time.Millisecond))
	}
	if closing.MatchString(c.raw) { // let the proxy notice before the next case
		time.Sleep(p.wait(20 * time.Millisecond))
	}
	return strings.Join(append(out, p.up.drain()...), "\n")
}

// TestTheWireIsEnvoysAtAGateway sends the same bytes through weft-proxy and Envoy, both configured as a gateway.
func TestTheWireIsEnvoysAtAGateway(t *testing.T) { testTheWire(t, xds.Router, "gateway") }

// TestTheWireIsEnvoysAtASidecar does the same with both configured as the caller's sidecar.
func TestTheWireIsEnvoysAtASidecar(t *testing.T) { testTheWire(t, xds.Sidecar, "sidecar") }

func testTheWire(t *testing.T, typ xds.NodeType, suite string) {
	up, services := startBackends(t)
	p := startProxies(t, up, differentialWorld(t, services), typ)
	for _, c := range diffCases[suite] {
		if c.only != "" && c.only != suite {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			p.judge(t, suite, c.name, func() (ours, theirs string) { return p.outcome(weftAddress, c), p.outcome(envoyAddress, c) })
		})
	}
	t.Run("HTTP2", func(t *testing.T) { p.runGRPC(t, suite) })
	t.Run("the same endpoint by consistent hash", p.testHash)
	t.Run("weights", p.testWeights)
}

// testHash asks for many keys: each must go where Envoy sends it.
func (p *proxies) testHash(t *testing.T) {
	for _, path := range []string{"/ring", "/maglev", "/query", "/cookie"} {
		used, wrong := map[string]bool{}, 0
		for i := range 100 {
			c := diffCase{raw: get("hash.test", fmt.Sprintf("%s?user=u%d&z=1", path, i), fmt.Sprintf("x-user: user-%d", i), fmt.Sprintf(`cookie: a=b; seat="c%d"`, i))}
			ours, theirs := backendOf(p.outcome(weftAddress, c)), backendOf(p.outcome(envoyAddress, c))
			if ours == "" || theirs == "" { // no answer, perhaps because the machine was busy: this is about where it comes from
				p.slower = 12
				ours, theirs = backendOf(p.outcome(weftAddress, c)), backendOf(p.outcome(envoyAddress, c))
				p.slower = 1
			}
			used[theirs] = true
			if ours != theirs {
				wrong++
			}
		}
		if wrong > 0 || len(used) != 5 || used[""] {
			t.Errorf("%s: %d of 100 keys at another endpoint than Envoy's; endpoints used: %v", path, wrong, used)
		}
	}
}

// testWeights compares shares: 75 to 25 of 800.
func (p *proxies) testWeights(t *testing.T) {
	for _, a := range []string{weftAddress, envoyAddress} {
		n := 0
		for range 800 {
			if backendOf(p.outcome(a, diffCase{raw: get("hash.test", "/w1")})) == "two-2" {
				n++
			}
		}
		if n < 120 || n > 280 { // 200 expected, by chance: out of these bounds once in 10^9 runs
			t.Errorf("%s: %d of 800 requests at weight 25", a, n)
		}
	}
}

func backendOf(outcome string) string {
	_, rest, _ := strings.Cut(outcome, "x-backend: ")
	name, _, _ := strings.Cut(rest, "\n")
	return name
}
