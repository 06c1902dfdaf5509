package main

import (
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"weft.mesh/weft/node/capture"
	"weft.mesh/weft/node/dns"
	"weft.mesh/weft/node/netns"
)

// proxyUser is the user and the group that the proxy runs as, in Istio's images and ours.
const proxyUser = "1337"

// captureOptions are the flags of capture; letters and meaning are those of istio-iptables.
type captureOptions struct {
	outboundPort, inboundPort      uint16
	users, groups                  string
	mark                           string
	mode                           string
	includeRanges, excludeRanges   string
	includeInbound, excludeInbound string
	includeOutbound                string
	excludeOutbound                string
	excludeInterfaces              string
	redirectDNS, resolvConf        string
	captureAllDNS                  bool
	dryRun, remove                 bool
}

func captureCommand(env getenv) *cobra.Command {
	var o captureOptions
	c := &cobra.Command{
		Use:   "capture",
		Short: "Redirect this pod's TCP traffic, and its DNS queries if you like, to the proxy beside it",
		Long: "Redirect the TCP traffic of this network namespace to the proxy: what the pod sends to --envoy-port, what reaches it to\n" +
			"--inbound-capture-port. It needs CAP_NET_ADMIN and nothing else, replaces what it did before in one step, and ends.\n" +
			"The flags and their variables mean what they mean to istio-iptables.",
		Example: "  weft-node capture -p 15001 -z 15006 -u 1337 -m REDIRECT -i '*' -b '*' -d 15090,15021,15020\n" +
			"  weft-node capture -o 3306 -x 10.1.0.0/16 --dry-run",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.remove {
				return o.undo()
			}
			return o.run(cmd)
		},
	}
	o.register(c, env)
	return c
}

func (o *captureOptions) register(c *cobra.Command, env getenv) {
	def := func(name, v string) string {
		if s := env(name); s != "" {
			return s
		}
		return v
	}
	f := c.Flags()
	f.Uint16VarP(&o.outboundPort, "envoy-port", "p", capture.DefaultOutboundPort, "port of the proxy for what the pod sends")
	f.Uint16VarP(&o.inboundPort, "inbound-capture-port", "z", capture.DefaultInboundPort, "port of the proxy for what reaches the pod")
	f.StringVarP(&o.users, "proxy-uid", "u", def("PROXY_UID", proxyUser), "user IDs whose traffic is left alone, comma-separated (environment: PROXY_UID)")
	f.StringVarP(&o.groups, "proxy-gid", "g", def("PROXY_GID", proxyUser), "group IDs whose traffic is left alone, comma-separated (environment: PROXY_GID)")
	f.StringVar(&o.mark, "proxy-mark", "", "mark of sockets that are left alone as well, like 0x539")
	f.StringVarP(&o.mode, "istio-inbound-interception-mode", "m", def("ISTIO_INBOUND_INTERCEPTION_MODE", "REDIRECT"), "REDIRECT, or NONE: do nothing (environment: ISTIO_INBOUND_INTERCEPTION_MODE)")
	f.StringVarP(&o.includeRanges, "istio-service-cidr", "i", def("ISTIO_SERVICE_CIDR", "*"), "IPv4 ranges to capture outbound; *: every one, empty: none (environment: ISTIO_SERVICE_CIDR)")
	f.StringVarP(&o.excludeRanges, "istio-service-exclude-cidr", "x", env("ISTIO_SERVICE_EXCLUDE_CIDR"), "IPv4 ranges not to capture outbound (environment: ISTIO_SERVICE_EXCLUDE_CIDR)")
	f.StringVarP(&o.includeInbound, "istio-inbound-ports", "b", def("ISTIO_INBOUND_PORTS", "*"), "ports to capture inbound; *: every one, empty: none (environment: ISTIO_INBOUND_PORTS)")
	f.StringVarP(&o.excludeInbound, "istio-local-exclude-ports", "d", env("ISTIO_LOCAL_EXCLUDE_PORTS"), "ports not to capture inbound (environment: ISTIO_LOCAL_EXCLUDE_PORTS)")
	f.StringVarP(&o.includeOutbound, "istio-outbound-ports", "q", env("ISTIO_OUTBOUND_PORTS"), "ports to capture outbound whatever the ranges say (environment: ISTIO_OUTBOUND_PORTS)")
	f.StringVarP(&o.excludeOutbound, "istio-local-outbound-ports-exclude", "o", env("ISTIO_LOCAL_OUTBOUND_PORTS_EXCLUDE"), "ports not to capture outbound (environment: ISTIO_LOCAL_OUTBOUND_PORTS_EXCLUDE)")
	f.StringVarP(&o.excludeInterfaces, "istio-exclude-interfaces", "c", env("ISTIO_EXCLUDE_INTERFACES"), "links whose traffic is not captured (environment: ISTIO_EXCLUDE_INTERFACES)")
	f.StringVar(&o.redirectDNS, "redirect-dns", def("ISTIO_META_DNS_CAPTURE", "false"), "redirect queries to the name servers of --resolv-conf, UDP and TCP, to the proxy's port 15053 (environment: ISTIO_META_DNS_CAPTURE)")
	f.Lookup("redirect-dns").NoOptDefVal = "true"
	f.StringVar(&o.resolvConf, "resolv-conf", "/etc/resolv.conf", "file with the name servers for --redirect-dns")
	f.BoolVar(&o.captureAllDNS, "capture-all-dns", false, "with --redirect-dns: queries to every name server")
	f.BoolVar(&o.dryRun, "dry-run", false, "print the rules as the nft command would, and change nothing")
	f.BoolVar(&o.remove, "cleanup", false, "take the rules away")
}

// config is what the flags ask for in a pod with these addresses.
func (o *captureOptions) config(addrs []netip.Addr) (c capture.Config, err error) {
	if c.PodIP, err = capture.PodAddress(addrs); err != nil {
		return c, err
	}
	if c.Traffic, err = o.traffic(); err != nil {
		return c, err
	}
	if c.Users, err = ids("--proxy-uid", o.users); err != nil {
		return c, err
	}
	if c.Groups, err = ids("--proxy-gid", o.groups); err != nil {
		return c, err
	}
	if o.mark != "" {
		n, err := strconv.ParseUint(o.mark, 0, 32)
		if err != nil || n == 0 {
			return c, fmt.Errorf("--proxy-mark %q: want a number like 0x539", o.mark)
		}
		c.Mark = uint32(n)
	}
	if len(c.Users)+len(c.Groups) == 0 && c.Mark == 0 {
		return c, errors.New("--proxy-uid, --proxy-gid and --proxy-mark are all empty: the proxy's own traffic would come back to it")
	}
	c.OutboundPort, c.InboundPort = o.outboundPort, o.inboundPort
	c.Names, err = o.names()
	return c, err
}

// names is what becomes of DNS queries.
func (o *captureOptions) names() (*capture.Names, error) {
	switch o.redirectDNS {
	case "true":
	case "false":
		if o.captureAllDNS {
			return nil, errors.New("--capture-all-dns: has no meaning without --redirect-dns; add it, or remove this")
		}
		return nil, nil
	default:
		return nil, fmt.Errorf("--redirect-dns (ISTIO_META_DNS_CAPTURE) %q: want true or false", o.redirectDNS)
	}
	if o.captureAllDNS {
		return &capture.Names{}, nil
	}
	conf, err := dns.ReadResolvConf(o.resolvConf)
	if err != nil {
		return nil, fmt.Errorf("--redirect-dns: name servers: %w", err)
	}
	servers, err := conf.ServersIPv4()
	if err != nil {
		return nil, fmt.Errorf("--redirect-dns: %s: %w; --capture-all-dns redirects queries to every one", o.resolvConf, err)
	}
	return &capture.Names{Servers: servers}, nil
}

// traffic reads the flags that narrow what is captured, by the rules of the annotations with the same meaning.
func (o *captureOptions) traffic() (capture.Traffic, error) {
	flags := map[string]string{
		capture.AnnotationIncludeOutboundRanges: "--istio-service-cidr", capture.AnnotationExcludeOutboundRanges: "--istio-service-exclude-cidr",
		capture.AnnotationIncludeInboundPorts: "--istio-inbound-ports", capture.AnnotationExcludeInboundPorts: "--istio-local-exclude-ports",
		capture.AnnotationIncludeOutboundPorts: "--istio-outbound-ports", capture.AnnotationExcludeOutboundPorts: "--istio-local-outbound-ports-exclude",
		capture.AnnotationExcludeInterfaces: "--istio-exclude-interfaces",
	}
	t, err := capture.ParseTraffic(map[string]string{
		capture.AnnotationIncludeOutboundRanges: o.includeRanges, capture.AnnotationExcludeOutboundRanges: o.excludeRanges,
		capture.AnnotationIncludeInboundPorts: o.includeInbound, capture.AnnotationExcludeInboundPorts: o.excludeInbound,
		capture.AnnotationIncludeOutboundPorts: o.includeOutbound, capture.AnnotationExcludeOutboundPorts: o.excludeOutbound,
		capture.AnnotationExcludeInterfaces: o.excludeInterfaces,
	})
	var bad *capture.AnnotationError
	if errors.As(err, &bad) {
		return t, fmt.Errorf("%s %q: %s", flags[bad.Annotation], bad.Value, bad.Reason)
	}
	return t, err
}

func (o *captureOptions) run(cmd *cobra.Command) error {
	switch o.mode {
	case "REDIRECT":
	case "NONE":
		fmt.Fprintln(cmd.ErrOrStderr(), "weft-node: interception mode NONE: nothing is captured")
		return nil
	default:
		return fmt.Errorf("--istio-inbound-interception-mode %q: want REDIRECT or NONE (TPROXY is not supported)", o.mode)
	}
	addrs, err := capture.Addresses()
	if err != nil {
		return err
	}
	conf, err := o.config(addrs)
	if err != nil {
		return err
	}
	rules, err := capture.Plan(conf)
	if err != nil {
		return err
	}
	if o.dryRun {
		_, err := fmt.Fprint(cmd.OutOrStdout(), rules)
		return err
	}
	if err := here(func(ns *netns.Handle) error { return capture.Apply(ns, rules) }); err != nil {
		return err
	}
	names := ""
	if conf.Names != nil {
		names = fmt.Sprintf(", DNS queries to %d", capture.NamesPort)
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "weft-node: captured: table ip %s, outbound to %d, inbound to %d%s\n", rules.Table, conf.OutboundPort, conf.InboundPort, names)
	return nil
}

func (o *captureOptions) undo() error {
	return here(func(ns *netns.Handle) error { return capture.Remove(ns, capture.TableCapture) })
}

// here does f in the namespace of this process, and says what is missing if the kernel refuses.
func here(f func(*netns.Handle) error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	ns, err := netns.FromThread()
	if err != nil {
		return err
	}
	defer ns.Close()
	if err = f(ns); errors.Is(err, unix.EPERM) {
		return fmt.Errorf("%w: CAP_NET_ADMIN is missing: give it to the container istio-init (securityContext.capabilities.add; the namespace's Pod Security must allow it)", err)
	}
	return err
}

// ids reads comma-separated numbers of users or groups.
func ids(flag, list string) ([]uint32, error) {
	var out []uint32
	for s := range strings.SplitSeq(list, ",") {
		if s = strings.TrimSpace(s); s == "" {
			continue
		}
		n, err := strconv.ParseUint(s, 10, 32)
		if err != nil {
			return nil, fmt.Errorf("%s %q: %q is not a number of a user or group", flag, list, s)
		}
		out = append(out, uint32(n))
	}
	return out, nil
}
