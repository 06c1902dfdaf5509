package main

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"weft.mesh/weft/internal/version"
	"weft.mesh/weft/proxy/admin"
	"weft.mesh/weft/proxy/server"
	"weft.mesh/weft/xds"
)

// options are the flags of sidecar and gateway.
type options struct {
	id, namespace, ip, serviceAccount, workload string
	labels                                      []string
	xds, caRoot, tokenFile, stateDir            string
	trustDomain, domain, cluster                string
	inherit                                     []string
	dnsServer                                   string
	dnsCapture                                  bool
	accessLog, level, appMetrics                string
	adminPort, concurrency                      int
	statusPort, readyPort, metricsPort          int
	drain                                       time.Duration
	maxConnections                              int
	maxStreams                                  int64
	memoryLimit                                 string
	hotRestart                                  bool
	hotRestartTimeout                           time.Duration
	parentDrain, parentShutdown                 time.Duration
	notifyFD                                    int
	minDrain                                    time.Duration
}

// getenv reads the environment; this package is the only place that does.
type getenv func(string) string

// rootCommand makes the command line; environ lists the environment as KEY=value for variables that have a prefix in common.
func rootCommand(stdout, stderr io.Writer, env getenv, environ ...string) *cobra.Command {
	root := &cobra.Command{
		Use:           "weft-proxy",
		Short:         "The data plane of Weft: a sidecar or a gateway",
		Version:       versionText(),
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.SetOut(stdout)
	root.SetErr(stderr)
	root.SetVersionTemplate("weft-proxy {{.Version}}\n")
	root.AddCommand(proxyCommand(xds.Sidecar, env, environ), proxyCommand(xds.Router, env, environ), waitCommand(), drainCommand(), requestCommand(), versionCommand())
	return root
}

func proxyCommand(role xds.NodeType, env getenv, environ []string) *cobra.Command {
	use, short := "sidecar", "Run the proxy beside a workload"
	if role == xds.Router {
		use, short = "gateway", "Run the proxy at an edge of the mesh"
	}
	var o options
	c := &cobra.Command{
		Use:   use,
		Short: short,
		Long: short + ".\n\nIt takes its configuration and certificates from the control plane at --xds, keeps both in --state-dir,\n" +
			"and serves from there while the control plane is away. SIGTERM drains, a second one ends it at once.\n" +
			"In an injected pod everything is known from the environment and the files that Kubernetes mounts.\n" +
			"SIGUSR2 starts its file again, which takes over the listening sockets (--hot-restart); then this process drains and ends.",
		Example: "  weft-proxy " + use + " --id reviews-1 --namespace default --ip 10.0.0.7 --service-account reviews \\\n" +
			"    --label app=reviews --label version=v1 --xds weft.weft-system.svc:15012 \\\n" +
			"    --ca-root /etc/weft/root-cert.pem --token-file /run/weft/token --state-dir /var/lib/weft-proxy",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			level := new(slog.LevelVar)
			pod, err := o.readPod(env, environ, cmd.Flags().Changed, "/")
			if err != nil {
				return err
			}
			set, err := o.settings(role, level, cmd.ErrOrStderr(), pod)
			if err != nil {
				return err
			}
			if set.Serving, err = notify(o.notifyFD, env("NOTIFY_SOCKET"), cmd.ErrOrStderr()); err != nil {
				return err
			}
			set.MemoryLimit = server.Tune(server.Tuning{Concurrency: o.concurrency, MemoryLimit: set.MemoryLimit})
			s, err := server.New(*set)
			if err != nil {
				return err
			}
			return s.Run(cmd.Context())
		},
	}
	o.register(c, env)
	return c
}

func (o *options) register(c *cobra.Command, env getenv) {
	host, _ := os.Hostname() // only a default
	f := c.Flags()
	f.StringVar(&o.id, "id", or(env("POD_NAME"), host), "name of the pod (environment: POD_NAME)")
	f.StringVar(&o.namespace, "namespace", or(env("POD_NAMESPACE"), "default"), "namespace of the pod (environment: POD_NAMESPACE)")
	f.StringVar(&o.ip, "ip", env("INSTANCE_IP"), "IP address of the pod (environment: INSTANCE_IP)")
	f.StringVar(&o.serviceAccount, "service-account", or(env("SERVICE_ACCOUNT"), "default"), "service account of the pod (environment: SERVICE_ACCOUNT)")
	f.StringArrayVar(&o.labels, "label", nil, "label of the pod, key=value (repeat)")
	f.StringVar(&o.workload, "workload", "", "name of the workload, the Deployment (default: the pod's)")
	f.StringVar(&o.xds, "xds", env("WEFT_XDS"), "control plane, host:port (environment: WEFT_XDS)")
	f.StringVar(&o.caRoot, "ca-root", "", "PEM file with the roots that verify the control plane")
	f.StringVar(&o.tokenFile, "token-file", "", "file with the join token")
	f.StringVar(&o.stateDir, "state-dir", "", "directory for identity and last good configuration")
	f.StringVar(&o.trustDomain, "trust-domain", "cluster.local", "trust domain of the mesh")
	f.StringVar(&o.domain, "domain", "cluster.local", "DNS domain of the cluster")
	f.StringVar(&o.dnsServer, "dns-server", "", "server that resolves names of upstreams, IP:port (default: those of the system)")
	f.BoolVar(&o.dnsCapture, "dns-capture", false, "the workload gets its names from the mesh: listen at addresses that the mesh allocates too")
	f.StringVar(&o.cluster, "cluster", "Kubernetes", "ID of the cluster")
	f.StringArrayVar(&o.inherit, "inherit-listener", nil, "bound socket passed by the parent process, port=fd (repeat)")
	f.StringVar(&o.accessLog, "access-log-file", "", "file for access logs that are configured for /dev/stdout")
	f.StringVar(&o.level, "log-level", "info", "trace, debug, info, warning, error, critical or off")
	f.IntVar(&o.adminPort, "admin-port", server.AdminPort, "port of the admin interface on 127.0.0.1; 0: none")
	f.IntVar(&o.statusPort, "status-port", server.StatusPort, "port of merged metrics and health; 0: none")
	f.IntVar(&o.readyPort, "ready-port", server.ReadyPort, "port of readiness; 0: none")
	f.IntVar(&o.metricsPort, "metrics-port", server.MetricsPort, "port of the proxy's metrics; 0: none")
	f.IntVar(&o.concurrency, "concurrency", 0, "threads that run Go code; 0: as the CPU limit allows, at most 2")
	f.DurationVar(&o.drain, "drain-duration", server.DefaultDrain, "how long connections may go on after SIGTERM")
	f.DurationVar(&o.minDrain, "min-drain-duration", server.DefaultMinDrain, "how long the proxy stays after SIGTERM at least, also if no connection is open")
	f.IntVar(&o.maxConnections, "max-connections", 0, "bound on open connections of clients, others are closed at once; 0: three quarters of the descriptors")
	f.Int64Var(&o.maxStreams, "max-requests", 0, "bound on requests that run at once, others are answered with 503; 0: none")
	f.StringVar(&o.memoryLimit, "memory-limit", "", "bytes, with Ki, Mi or Gi if you like, above which requests and then connections are turned away (default: the cgroup's limit)")
	f.BoolVar(&o.hotRestart, "hot-restart", false, "take the listening sockets over from the weft-proxy that runs with the same --state-dir, which then drains and ends; start as usual if there is none")
	f.DurationVar(&o.hotRestartTimeout, "hot-restart-timeout", server.DefaultHotRestartTimeout, "with --hot-restart: end, and leave the service to the running one, if not ready by then")
	f.DurationVar(&o.parentDrain, "parent-drain-duration", server.DefaultParentDrain, "with --hot-restart: how long the one before ends connections gently")
	f.DurationVar(&o.parentShutdown, "parent-shutdown-duration", server.DefaultParentShutdown, "with --hot-restart: when the one before cuts what is left")
	f.IntVar(&o.notifyFD, "notify-fd", 0, `descriptor to write the line "serving" to when the proxy is ready; it is closed then`)
	o.appMetrics = env("WEFT_APP_METRICS")
}

// port is the address of an interface on all addresses; "" (not served) for 0.
func port(n int) string {
	if n == 0 {
		return ""
	}
	return ":" + strconv.Itoa(n)
}

func or(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// settings checks the flags and turns them into the server's settings.
func (o *options) settings(role xds.NodeType, level *slog.LevelVar, stderr io.Writer, pod podSettings) (*server.Settings, error) {
	l, err := admin.ParseLevel(o.level)
	if err != nil {
		return nil, fmt.Errorf("--log-level: %w", err)
	}
	level.Set(l)
	ip, err := netip.ParseAddr(o.ip)
	if err != nil {
		return nil, fmt.Errorf("--ip %q: want the pod's IP address", o.ip)
	}
	s := &server.Settings{
		Role: role, Name: o.id, Namespace: o.namespace, IP: ip, ServiceAccount: o.serviceAccount, Workload: o.workload,
		TrustDomain: o.trustDomain, Domain: o.domain, Cluster: o.cluster, XDS: o.xds, StateDir: o.stateDir, AccessLogFile: o.accessLog,
		Status: port(o.statusPort), Ready: port(o.readyPort), Metrics: port(o.metricsPort),
		AppMetrics: o.appMetrics, Drain: o.drain, MinDrain: min(max(o.minDrain, time.Millisecond), o.drain),
		Metadata: pod.metadata, AppProbes: pod.probes,
		HotRestart: o.hotRestart, HotRestartTimeout: o.hotRestartTimeout, ParentDrain: o.parentDrain, ParentShutdown: o.parentShutdown,
		Log: slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: level})), Level: level,
	}
	if s.MemoryLimit, err = parseBytes(o.memoryLimit); err != nil {
		return nil, fmt.Errorf("--memory-limit: %w", err)
	}
	if o.maxConnections < 0 || o.maxStreams < 0 {
		return nil, fmt.Errorf("--max-connections %d, --max-requests %d: want 0 or more", o.maxConnections, o.maxStreams)
	}
	s.MaxConnections, s.MaxStreams = o.maxConnections, o.maxStreams
	if o.adminPort != 0 {
		s.Admin = "127.0.0.1:" + strconv.Itoa(o.adminPort)
	}
	if role == xds.Sidecar && !pod.in { // in a pod capture knows us by our user: marks need CAP_NET_ADMIN
		s.Mark = server.Mark
	}
	s.DNSCapture = o.dnsCapture || pod.resolvConf != ""
	if pod.resolvConf != "" && role == xds.Sidecar { // a gateway has no programs beside it that could ask
		n, err := newNameServer(pod.resolvConf, o.namespace, o.domain)
		if err != nil {
			return nil, err
		}
		s.Names, s.NamesAddress = n, server.NamesAddress
	}
	if o.dnsServer != "" {
		if s.DNSServer, err = netip.ParseAddrPort(o.dnsServer); err != nil {
			return nil, fmt.Errorf("--dns-server %q: want an IP address and port", o.dnsServer)
		}
	}
	if s.Labels, err = parseLabels(o.labels); err != nil {
		return nil, err
	}
	for k, v := range pod.labels {
		if _, ok := s.Labels[k]; !ok {
			s.Labels[k] = v
		}
	}
	if s.Inherited, err = inherited(o.inherit); err != nil {
		return nil, err
	}
	if o.caRoot != "" && pod.in {
		s.CARootsFile = o.caRoot // kubelet replaces it when the authority's root changes
	} else if o.caRoot != "" {
		if s.CARoots, err = os.ReadFile(o.caRoot); err != nil {
			return nil, fmt.Errorf("--ca-root: %w", err)
		}
	} else if o.xds != "" {
		return nil, fmt.Errorf("--ca-root: must be set: without it the control plane at %s cannot be verified", o.xds)
	}
	if o.tokenFile != "" {
		s.Token = func() (string, error) {
			b, err := os.ReadFile(o.tokenFile)
			return string(b), err
		}
	}
	return s, nil
}

// leastMemory is what a proxy needs to do anything at all.
const leastMemory = 24 << 20

// parseBytes reads a number of bytes with an optional unit, as Kubernetes writes limits; "" is 0.
func parseBytes(s string) (uint64, error) {
	if s == "" {
		return 0, nil
	}
	digits, unit := s, uint64(1)
	for suffix, n := range map[string]uint64{"Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30, "k": 1e3, "M": 1e6, "G": 1e9} {
		if d, ok := strings.CutSuffix(s, suffix); ok {
			digits, unit = d, n
		}
	}
	n, err := strconv.ParseUint(digits, 10, 63)
	if err != nil || n > math.MaxInt64/unit || n*unit < leastMemory {
		return 0, fmt.Errorf("%q: want a number of bytes of at least 24Mi, like 128Mi", s)
	}
	return n * unit, nil
}

func parseLabels(list []string) (map[string]string, error) {
	out := map[string]string{}
	for _, l := range list {
		k, v, ok := strings.Cut(l, "=")
		if !ok || k == "" {
			return nil, fmt.Errorf("--label %q: want key=value", l)
		}
		out[k] = v
	}
	return out, nil
}

// inherited takes over bound sockets from the parent process.
func inherited(list []string) (map[uint16]net.Listener, error) {
	out := map[uint16]net.Listener{}
	for _, s := range list {
		p, f, _ := strings.Cut(s, "=")
		port, err := strconv.ParseUint(p, 10, 16)
		fd, err2 := strconv.ParseUint(f, 10, 31)
		if err != nil || err2 != nil || port == 0 {
			return nil, fmt.Errorf("--inherit-listener %q: want port=fd", s)
		}
		file := os.NewFile(uintptr(fd), "inherited listener "+p)
		ln, err := net.FileListener(file)
		_ = file.Close() // FileListener has a copy
		if err != nil {
			return nil, fmt.Errorf("--inherit-listener %q: %w", s, err)
		}
		out[uint16(port)] = ln
	}
	return out, nil
}

func versionText() string {
	v := version.Get()
	return fmt.Sprintf("%s (%s, %s/%s)", v.Version, v.Go, runtime.GOOS, runtime.GOARCH)
}

func versionCommand() *cobra.Command {
	var output string
	c := &cobra.Command{
		Use:     "version",
		Short:   "Print the version",
		Example: "  weft-proxy version -o json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch output {
			case "":
				fmt.Fprintln(cmd.OutOrStdout(), "weft-proxy "+versionText())
				return nil
			case "json":
				e := json.NewEncoder(cmd.OutOrStdout())
				e.SetIndent("", "  ")
				return e.Encode(version.Get())
			}
			return fmt.Errorf("-o %q: want json", output)
		},
	}
	c.Flags().StringVarP(&output, "output", "o", "", "json, or empty for text")
	return c
}
