package server

import (
	"context"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"weft.mesh/weft/proxy/telemetry"
	"weft.mesh/weft/proxy/xdsclient"
	"weft.mesh/weft/xds"
	"weft.mesh/weft/xds/nds"
)

// tables is a NameServer that counts.
type tables struct {
	set []map[string]nds.Info
}

func (s *tables) SetTable(t map[string]nds.Info) { s.set = append(s.set, t) }
func (s *tables) Counts() NameCounts {
	return NameCounts{Requests: 9, Forwarded: 4, Failed: 1, Bounds: []float64{0.5, 1}, Took: []uint64{1, 2, 1}, TookSum: 2500 * time.Millisecond}
}
func (s *tables) Run(ctx context.Context, pc net.PacketConn, ln net.Listener) error {
	defer pc.Close()
	defer ln.Close()
	<-ctx.Done()
	return nil
}

// others is the Sink of the other types.
type others struct{ types []string }

func (o *others) Apply(u xdsclient.Update) ([]string, string) {
	o.types = append(o.types, u.TypeURL)
	return nil, ""
}
func (o *others) Wanted(string) []string          { return nil }
func (o *others) Commit()                         {}
func (o *others) Accepted(string) []*xds.Resource { return nil }

func table(name string) *xds.Resource {
	return xds.NewResource(xds.NameTableType, xds.NameTableName, nds.Encode(map[string]nds.Info{name: {IPs: []string{"10.0.0.1"}}}))
}

func TestNamesComeFromTheLastTableThatCouldBeRead(t *testing.T) {
	s, rest := &tables{}, &others{}
	n := &names{Sink: rest, server: s}
	if ok, why := n.ready(); ok || !strings.Contains(why, "no name table") {
		t.Errorf("ready before the first table: %t, %q", ok, why)
	}
	good := table("api.example.com")
	if refused, why := n.Apply(xdsclient.Update{TypeURL: xds.NameTableType, Set: []*xds.Resource{good}}); len(refused) > 0 || why != "" {
		t.Errorf("refused %v: %s", refused, why)
	}
	bad := &xds.Resource{Name: xds.NameTableName, Version: "2", TypeURL: xds.NameTableType, Body: []byte{0x0a, 9}}
	refused, why := n.Apply(xdsclient.Update{TypeURL: xds.NameTableType, Set: []*xds.Resource{bad}})
	if !slices.Equal(refused, []string{xds.NameTableName}) || !strings.Contains(why, "NDS") || !strings.Contains(why, "name table") {
		t.Errorf("refused %v: %q, want the table by name", refused, why)
	}
	if got := n.Accepted(xds.NameTableType); len(s.set) != 1 || len(got) != 1 || got[0] != good {
		t.Errorf("%d tables were set and %v is accepted: want the good one only", len(s.set), got)
	}
	n.Apply(xdsclient.Update{TypeURL: xds.ClusterType})
	if !slices.Equal(rest.types, []string{xds.ClusterType}) {
		t.Errorf("others got %v", rest.types)
	}
	n.Apply(xdsclient.Update{TypeURL: xds.NameTableType, Removed: []string{xds.NameTableName}})
	if len(s.set) != 2 || s.set[1] != nil || n.Accepted(xds.NameTableType) != nil {
		t.Errorf("a table that is gone is still there: %v", s.set)
	}
}

// A control plane that knows no names must not keep the proxy from serving.
func TestAnEmptyAnswerMakesNamesReady(t *testing.T) {
	n := &names{Sink: &others{}, server: &tables{}}
	n.Apply(xdsclient.Update{TypeURL: xds.NameTableType})
	if ok, why := n.ready(); !ok {
		t.Error(why)
	}
	if ok, _ := (*names)(nil).ready(); !ok {
		t.Error("a proxy that answers no names waits for them")
	}
}

// Two proxies of one user share the port for the moment of a hot restart; the sockets end with run.
func TestNamesAreServedOnLoopbackByTwoForAMoment(t *testing.T) {
	first := &names{server: &tables{}, address: "127.0.0.1:0"}
	pc, ln, err := first.listen(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer pc.Close()
	defer ln.Close()
	second := &names{server: &tables{}, address: pc.LocalAddr().String()}
	ctx, cancel := context.WithCancel(t.Context())
	pc2, ln2, err := second.listen(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if pc2.LocalAddr().String() != pc.LocalAddr().String() || ln2.Addr().String() != ln.Addr().String() {
		t.Errorf("%v and %v", pc2.LocalAddr(), ln2.Addr())
	}
	cancel()
	if err := second.server.Run(ctx, pc2, ln2); err != nil {
		t.Error(err)
	}
}

// What a name server counted is written by the names that Istio's agent gives it.
func TestNamesAreCountedAsIstiosAgentDoes(t *testing.T) {
	n := &names{server: &tables{}}
	r := telemetry.NewRegistry()
	r.Collect(n.writeMetrics)
	var out strings.Builder
	if err := r.WriteText(&out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"\nistio_agent_dns_requests_total 9\n", "\nistio_agent_dns_upstream_requests_total 4\n", "\nistio_agent_dns_upstream_failures_total 1\n",
		"# TYPE istio_agent_dns_upstream_request_duration_seconds histogram\n",
		"\nistio_agent_dns_upstream_request_duration_seconds_bucket{le=\"0.5\"} 1\n", "_bucket{le=\"1\"} 3\n", "_bucket{le=\"+Inf\"} 4\n",
		"_seconds_sum 2.5\n", "_seconds_count 4\n",
	} {
		if !strings.Contains("\n"+out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
}

func TestTheTableIsShownAsItIs(t *testing.T) {
	n := &names{Sink: &others{}, server: &tables{}}
	if n.shown() != nil {
		t.Error("there is a table before the first")
	}
	n.Apply(xdsclient.Update{TypeURL: xds.NameTableType, Set: []*xds.Resource{table("api.example.com")}})
	if got := n.shown(); len(got) != 1 || !slices.Equal(got["api.example.com"].IPs, []string{"10.0.0.1"}) {
		t.Errorf("shown: %v", got)
	}
}
