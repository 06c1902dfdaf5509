package hcm

import (
	"bytes"
	"encoding/binary"
	"strings"
	"testing"

	"weft.mesh/weft/proxy/config"
	"weft.mesh/weft/proxy/stream"
)

// TestANewcomerGetsWhatOthersGetOneByOne compares the headers made in one go with those made by the ordinary way.
func TestANewcomerGetsWhatOthersGetOneByOne(t *testing.T) {
	for _, secure := range []bool{false, true} {
		for _, share := range []float64{0, 100} {
			var heads [2][]string
			for i := range heads {
				m := &Manager{cfg: &config.HTTPManager{GenerateRequestID: true, Tracing: &config.Tracing{RandomSampling: share, OverallSampling: 100}}}
				x := &exchange{message: message{m: m, conn: &connection{m: m, info: &stream.ConnInfo{TLS: secure}}, req: &stream.Request{}}}
				x.req.Fields.Add("accept", "*/*")
				x.h.scan(&x.req.Fields)
				if !x.isNewcomer(m.cfg) {
					t.Fatal("not taken for a newcomer")
				}
				if i == 0 {
					x.welcome(m.cfg.Tracing)
				} else {
					x.forwardedProto(m.cfg)
					x.requestID(m.cfg, false)
					x.trace(m.cfg.Tracing)
				}
				heads[i] = masked(t, x)
			}
			if got, want := strings.Join(heads[0], "\n"), strings.Join(heads[1], "\n"); got != want {
				t.Errorf("secure %v, share %v: in one go\n%s\none by one\n%s", secure, share, got, want)
			}
		}
	}
}

// masked is the head with random digits as x. It checks that the parts that belong together are the same.
func masked(t *testing.T, x *exchange) []string {
	t.Helper()
	f := &x.req.Fields
	parent := string(f.Get("traceparent"))
	if len(parent) != 55 || string(f.Get("x-b3-traceid")) != parent[3:35] || string(f.Get("x-b3-spanid")) != parent[36:52] {
		t.Errorf("trace %q, b3 %q %q", parent, f.Get("x-b3-traceid"), f.Get("x-b3-spanid"))
	}
	id := string(f.Get("x-request-id"))
	if id != string(x.info.RequestID) || len(id) != 36 || id[14] != '4' || !strings.ContainsRune("89ab", rune(id[19])) {
		t.Errorf("request id %q, in the log %q", id, x.info.RequestID)
	}
	var out []string
	for _, l := range f.All() {
		v, from, to := bytes.Clone(l.Value), 0, 0
		switch string(l.Name) {
		case "x-request-id", "x-b3-traceid", "x-b3-spanid":
			to = len(v)
		case "traceparent":
			from, to = 3, len(v)-3
		}
		for i := from; i < to; i++ {
			if isHex(v[i]) {
				v[i] = 'x'
			}
		}
		out = append(out, string(l.Name)+": "+string(v))
	}
	return out
}

func TestOurLinesLeaveInOnePiece(t *testing.T) {
	m := &Manager{cfg: &config.HTTPManager{GenerateRequestID: true, Tracing: &config.Tracing{}}}
	x := &exchange{message: message{m: m, conn: &connection{m: m, info: &stream.ConnInfo{}}, req: &stream.Request{}}, buf: make([]byte, 0, 1024)}
	x.welcome(m.cfg.Tracing)
	f := &x.req.Fields
	x.addLine(f, "x-a", []byte("b"))
	x.addNumber(f, "x-n", 120)
	text, next := f.Run(0)
	if next != f.Len() || !strings.HasSuffix(string(text), "x-b3-sampled: 0\r\nx-a: b\r\nx-n: 120\r\n") || !strings.HasPrefix(string(text), "x-forwarded-proto: http\r\n") {
		t.Errorf("%d of %d lines: %q", next, f.Len(), text)
	}
	x.addLine(f, "x-evil", []byte("a\r\nb: c"))
	if l := f.At(f.Len() - 1); l.Checked() {
		t.Error("a value that breaks the head passes for checked")
	}
}

func TestHex8(t *testing.T) {
	b := []byte("0189afcd")
	for at := range b {
		for c := range 256 {
			x := bytes.Clone(b)
			x[at] = byte(c)
			want := '0' <= c && c <= '9' || 'a' <= c && c <= 'f'
			if got := hex8(binary.LittleEndian.Uint64(x)); got != want {
				t.Errorf("%q: %v", x, got)
			}
		}
	}
}

// TestSeveralTraceHeadersBecomeOne: a caller's span that stood in a second line would pass for ours.
func TestSeveralTraceHeadersBecomeOne(t *testing.T) {
	const trace, span = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
	m := &Manager{cfg: &config.HTTPManager{Tracing: &config.Tracing{}}}
	for lines := 1; lines <= 2; lines++ {
		x := &exchange{message: message{m: m, conn: &connection{m: m, info: &stream.ConnInfo{}}, req: &stream.Request{}}}
		f := &x.req.Fields
		add := func(name, value string) { f.AppendLine([]byte(name+": "+value+"\r\n"), len(name), true) }
		add("x-b3-traceid", trace)
		for range lines {
			add("traceparent", "00-"+trace+"-"+span+"-01")
			add("X-B3-SpanId", span)
		}
		x.h.scan(f)
		x.trace(m.cfg.Tracing)
		parents, spans := 0, 0
		for _, l := range f.All() {
			if stream.EqualFold(l.Name, "traceparent") {
				parents++
			}
			if stream.EqualFold(l.Name, "x-b3-spanid") {
				spans++
			}
			if strings.Contains(string(l.Value), span) && !stream.EqualFold(l.Name, "x-b3-parentspanid") {
				t.Errorf("%d lines: the caller's span is left in %s: %s", lines, l.Name, l.Value)
			}
		}
		if parents != 1 || spans != 1 {
			t.Errorf("%d lines of each became %d of traceparent and %d of x-b3-spanid, want 1", lines, parents, spans)
		}
	}
}
