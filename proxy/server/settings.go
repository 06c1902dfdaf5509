package server

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"time"

	"google.golang.org/grpc/credentials"

	"weft.mesh/weft/proxy/admin"
	"weft.mesh/weft/proxy/identity"
	"weft.mesh/weft/proxy/stream"
	"weft.mesh/weft/spiffe"
	"weft.mesh/weft/xds"
)

// Mark is SO_MARK of all sockets a sidecar opens, which capture lets pass.
const Mark = 0x539

// Ports as everywhere in the mesh.
const (
	AdminPort   = 15000
	StatusPort  = 15020
	ReadyPort   = 15021
	MetricsPort = 15090
)

// Defaults of [Settings].
const (
	DefaultDrain    = 5 * time.Second // Istio's terminationDrainDuration
	DefaultMinDrain = 2 * time.Second

	DefaultHotRestartTimeout = time.Minute
	DefaultParentDrain       = 45 * time.Second // Istio's drainDuration
	DefaultParentShutdown    = time.Minute      // Istio's parentShutdownDuration
)

// Settings of a [Server].
type Settings struct {
	Role           xds.NodeType // xds.Sidecar or xds.Router
	Name           string       // of the pod
	Namespace      string
	IP             netip.Addr
	ServiceAccount string
	Workload       string // Deployment; default Name
	Labels         map[string]string
	TrustDomain    string // default cluster.local
	Domain         string // DNS domain of the cluster; default cluster.local
	Cluster        string // cluster ID; default Kubernetes

	// Metadata of the node beyond what the fields above say, by Istio's keys (MESH_ID, NETWORK, OWNER …).
	Metadata map[string]string

	XDS     string // host:port of the control plane
	CARoots []byte // PEM; verify the control plane until the first certificate came
	// CARootsFile, if set, is read instead of CARoots, again when it changed.
	CARootsFile string
	Token       func() (string, error) // join token, asked for at each use; nil: none
	// StateDir keeps identity and last-good configuration; "": nothing is kept.
	StateDir string
	// Inherited are sockets bound before, by port.
	Inherited map[uint16]net.Listener
	// AccessLogFile replaces /dev/stdout in configured access logs; "": as configured.
	AccessLogFile string
	// Addresses of the interfaces; "" is not served.
	Admin, Status, Ready, Metrics string
	// AppMetrics is the URL of the application's metrics for the merged page; "": none.
	AppMetrics string
	// AppProbes are the application's probes that kubelet makes through Status, by path.
	AppProbes map[string]admin.AppProbe
	// DNSServer resolves the names of DNS clusters; zero: the servers of the system.
	DNSServer netip.AddrPort
	// DNSCapture tells the control plane that our workload gets its names from the mesh,
	// so that addresses which it allocates mean something here (Istio's DNS_CAPTURE).
	DNSCapture bool
	// Names answers our workload's DNS queries at NamesAddress, from the table that the control plane is asked for; nil: nobody does.
	Names        NameServer
	NamesAddress string // on loopback: 127.0.0.1:15053
	// HotRestart takes the listening sockets over from the proxy that runs with the same StateDir, if there is one;
	// without it such a proxy is an error. HotRestartTimeout is how long we may take to become ready, after which the
	// other goes on and Run fails; zero: [DefaultHotRestartTimeout].
	HotRestart        bool
	HotRestartTimeout time.Duration
	// ParentDrain is how long the one before us may end connections gently, ParentShutdown when it cuts the
	// rest: Istio's drainDuration and parentShutdownDuration. Zero: the defaults.
	ParentDrain, ParentShutdown time.Duration
	// Serving is called once, when the proxy is ready and, in a hot restart, nobody else accepts any more; nil: not.
	Serving func()
	// Mark is set on sockets to upstreams and control plane; 0: none.
	Mark int
	// Drain bounds draining at the end; MinDrain is how long it lasts at least. Zero: the defaults.
	Drain, MinDrain time.Duration
	// AllowDirect lets capturing listeners serve connections that were not redirected: tests without capture.
	AllowDirect bool
	// MaxConnections bounds open connections of clients; 0: three quarters of the descriptors. MaxStreams
	// bounds requests that run at once; 0: no bound. MemoryLimit in bytes is what
	// the overload manager keeps below; 0: memory is not watched. See package overload.
	MaxConnections int
	MaxStreams     int64
	MemoryLimit    uint64
	// ReadFile reads files that resources name (gateway certificates); nil: os.ReadFile within bounds.
	ReadFile func(string) ([]byte, error)

	// Identity replaces the CA client, Credentials the mTLS to the control plane: tests.
	Identity    *identity.Source
	Credentials credentials.TransportCredentials

	Log   *slog.Logger
	Level *slog.LevelVar
}

// complete fills in defaults and checks.
func (s *Settings) complete() error {
	def := func(p *string, v string) {
		if *p == "" {
			*p = v
		}
	}
	def(&s.TrustDomain, "cluster.local")
	def(&s.Domain, "cluster.local")
	def(&s.Cluster, "Kubernetes")
	def(&s.Workload, s.Name)
	if s.Drain <= 0 {
		s.Drain = DefaultDrain
	}
	if s.MinDrain <= 0 {
		s.MinDrain = DefaultMinDrain
	}
	if s.HotRestartTimeout <= 0 {
		s.HotRestartTimeout = DefaultHotRestartTimeout
	}
	if s.ParentDrain <= 0 {
		s.ParentDrain = DefaultParentDrain
	}
	if s.ParentShutdown <= 0 {
		s.ParentShutdown = DefaultParentShutdown
	}
	if s.ParentShutdown < s.ParentDrain {
		return fmt.Errorf("settings: the parent's shutdown duration %v is shorter than its drain duration %v", s.ParentShutdown, s.ParentDrain)
	}
	if s.HotRestart && s.StateDir == "" {
		return errors.New("settings: a hot restart needs a state directory: the running proxy is found there")
	}
	s.MinDrain = min(s.MinDrain, s.Drain)
	if s.Log == nil {
		s.Log = slog.New(slog.DiscardHandler)
	}
	if s.Level == nil {
		s.Level = new(slog.LevelVar)
	}
	switch {
	case s.Role != xds.Sidecar && s.Role != xds.Router:
		return fmt.Errorf("settings: role %q: want %s or %s", s.Role, xds.Sidecar, xds.Router)
	case s.Name == "" || s.Namespace == "" || s.ServiceAccount == "":
		return errors.New("settings: name, namespace and service account must be set")
	case !s.IP.IsValid():
		return errors.New("settings: the workload's IP address must be set")
	case s.XDS == "":
		return errors.New("settings: the control plane's address must be set")
	}
	if _, err := xds.ParseNodeID(s.nodeID()); err != nil {
		return fmt.Errorf("settings: %w", err)
	}
	return nil
}

func (s *Settings) nodeID() string {
	return xds.NodeID(s.Role, s.IP, s.Name, s.Namespace, s.Namespace+".svc."+s.Domain)
}

func (s *Settings) spiffeID() (spiffe.ID, error) {
	return spiffe.New(s.TrustDomain, s.Namespace, s.ServiceAccount)
}

// lastGood is the file of accepted resources.
func (s *Settings) lastGood() string {
	if s.StateDir == "" {
		return ""
	}
	return filepath.Join(s.StateDir, "last-good.xds")
}

// self describes our workload for metrics and peers, by Istio's label rules.
func (s *Settings) self() stream.Workload {
	first := func(def string, keys ...string) string {
		for _, k := range keys {
			if v := s.Labels[k]; v != "" {
				return v
			}
		}
		return def
	}
	id, _ := s.spiffeID() // checked by New
	return stream.Workload{
		Name: s.Workload, Namespace: s.Namespace, Cluster: s.Cluster, Principal: id.String(),
		App: s.Labels["app"], Version: s.Labels["version"],
		CanonicalName:     first(s.Workload, "service.istio.io/canonical-name", "app.kubernetes.io/name", "app"),
		CanonicalRevision: first("latest", "service.istio.io/canonical-revision", "app.kubernetes.io/version", "version"),
	}
}
