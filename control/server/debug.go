package server

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/pprof"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"weft.mesh/weft/xds"
)

// debugPages lists the pages of 15014 with Istio's names where it has them.
var debugPages = []struct{ path, help string }{
	{"/metrics", "metrics in Prometheus' format"},
	{"/ready", "200 when a World is being served"},
	{"/debug/syncz", "sync state of every proxy, as istioctl reads it"},
	{"/debug/adsz", "connected proxies"},
	{"/debug/configz", "all configuration objects"},
	{"/debug/registryz", "all services with their endpoints' number"},
	{"/debug/endpointz", "endpoints by service and port"},
	{"/debug/config_dump", "resources of one proxy: ?proxyID=<pod>.<namespace>"},
	{"/debug/pprof/", "Go profiles (loopback callers only)"},
}

// httpHandler serves 15014: metrics, readiness and debug pages. Debug pages
// show configuration, so they answer loopback callers only.
func (s *Server) httpHandler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", s.metrics.handler())
	ready := func(w http.ResponseWriter, _ *http.Request) {
		if !s.ready.Load() || s.gate.closed() {
			http.Error(w, "no World is served yet: sources are still being read", http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ready")
	}
	mux.HandleFunc("GET /ready", ready)
	mux.HandleFunc("GET /healthz/ready", ready)
	debug := func(pattern string, h http.HandlerFunc) { mux.Handle("GET "+pattern, loopback(h)) }
	debug("/debug/syncz", s.syncz)
	s.remote(debug)
	debug("/debug/adsz", s.adsz)
	debug("/debug/configz", func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, http.StatusOK, s.objects("", "", "")) })
	debug("/debug/registryz", s.registryz)
	debug("/debug/endpointz", s.endpointz)
	debug("/debug/config_dump", s.configDump)
	debug("/debug/pprof/", pprof.Index)
	debug("/debug/pprof/profile", pprof.Profile)
	debug("/debug/pprof/trace", pprof.Trace)
	debug("/debug/", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/debug/" {
			http.NotFound(w, r)
			return
		}
		for _, p := range debugPages {
			fmt.Fprintf(w, "%-22s %s\n", p.path, p.help)
		}
	})
	return mux
}

// loopback refuses callers from elsewhere, and names that a browser was
// tricked into (DNS rebinding).
func loopback(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !isLoopback(r.RemoteAddr) || !isLocalHost(r.Host) {
			http.Error(w, "debug pages answer loopback callers only", http.StatusForbidden)
			return
		}
		h.ServeHTTP(w, r)
	})
}

func (s *Server) adsz(w http.ResponseWriter, _ *http.Request) {
	type conn struct {
		ID        string    `json:"connectionId"`
		Connected time.Time `json:"connectedAt"`
		Identity  string    `json:"identity"`
		World     string    `json:"world"`
	}
	out := struct {
		Total   int    `json:"totalClients"`
		Clients []conn `json:"clients"`
	}{}
	for _, p := range s.tracker.Proxies() {
		if p.Lost == nil {
			out.Clients = append(out.Clients, conn{p.ID, p.Connected, p.Identity, p.World})
		}
	}
	out.Total = len(out.Clients)
	writeJSON(w, http.StatusOK, out)
}

// configDump shows what a connected proxy gets, decoded.
func (s *Server) configDump(w http.ResponseWriter, r *http.Request) {
	want := r.URL.Query().Get("proxyID")
	n := s.nodes.find(want)
	if n == nil {
		known := s.nodes.names()
		writeError(w, http.StatusNotFound, fmt.Sprintf("proxyID %q: no such proxy is connected", want), "one of: "+strings.Join(known, ", "))
		return
	}
	snap := s.current()
	if snap == nil {
		writeError(w, http.StatusServiceUnavailable, "no World is served yet", "wait for /ready")
		return
	}
	out := map[string][]json.RawMessage{}
	for _, t := range xds.PushOrder {
		rs, err := snap.Resources(n, t, nil)
		if err != nil {
			writeError(w, http.StatusInternalServerError, err.Error(), "")
			return
		}
		for _, x := range rs {
			out[xds.ShortName(t)] = append(out[xds.ShortName(t)], decode(x))
		}
	}
	writeJSON(w, http.StatusOK, out)
}

// decode turns a resource into JSON; what cannot be decoded is said, not hidden.
func decode(r *xds.Resource) json.RawMessage {
	name := protoreflect.FullName(r.TypeURL[strings.LastIndexByte(r.TypeURL, '/')+1:])
	fail := func(err error) json.RawMessage {
		b, _ := json.Marshal(map[string]string{"name": r.Name, "error": err.Error()})
		return b
	}
	mt, err := protoregistry.GlobalTypes.FindMessageByName(name)
	if err != nil {
		return fail(err)
	}
	m := mt.New().Interface()
	if err := proto.Unmarshal(r.Body, m); err != nil {
		return fail(err)
	}
	if r.TypeURL == xds.SecretType {
		hideKey(m.ProtoReflect())
	}
	b, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(m)
	if err != nil {
		return fail(err)
	}
	return b
}

// hideKey takes the private key out of a secret.
func hideKey(m protoreflect.Message) {
	field := m.Descriptor().Fields().ByName("tls_certificate")
	if field == nil || !m.Has(field) {
		return
	}
	cert := m.Mutable(field).Message()
	if key := cert.Descriptor().Fields().ByName("private_key"); key != nil {
		cert.Clear(key)
	}
}

func (s *Server) registryz(w http.ResponseWriter, _ *http.Request) {
	type svc struct {
		Host      string   `json:"hostname"`
		Ports     []uint16 `json:"ports"`
		Addresses []string `json:"addresses"`
	}
	out := []svc{}
	names := s.names.table().Names
	if world := s.world(); world != nil {
		for _, x := range world.Services() {
			v := svc{Host: x.Host, Addresses: names[x.Host]}
			for _, p := range x.Ports {
				v.Ports = append(v.Ports, p.Number)
			}
			out = append(out, v)
		}
	}
	slices.SortFunc(out, func(a, b svc) int { return strings.Compare(a.Host, b.Host) })
	writeJSON(w, http.StatusOK, out)
}

func (s *Server) endpointz(w http.ResponseWriter, _ *http.Request) {
	type ep struct {
		Service  string `json:"svc"`
		Port     uint16 `json:"servicePort"`
		Address  string `json:"address"`
		MTLS     bool   `json:"mtls"`
		Draining bool   `json:"draining,omitempty"`
	}
	out := []ep{}
	if world := s.world(); world != nil {
		for _, x := range world.Services() {
			eps := world.Endpoints(x.Key)
			for _, p := range x.Ports {
				for _, e := range eps.Of(p.Number) {
					addr := e.Hostname
					if e.Addr.IsValid() {
						addr = e.Addr.String()
					}
					out = append(out, ep{x.Host, p.Number, fmt.Sprintf("%s:%d", addr, e.Port), e.MTLS, e.Draining})
				}
			}
		}
	}
	slices.SortFunc(out, func(a, b ep) int { return strings.Compare(a.Service+a.Address, b.Service+b.Address) })
	writeJSON(w, http.StatusOK, out)
}
