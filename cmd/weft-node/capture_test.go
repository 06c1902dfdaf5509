package main

import (
	"bytes"
	"flag"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"

	"weft.mesh/weft/node/netns"
)

var update = flag.Bool("update", false, "rewrite golden files")

// TestMain lets the test binary be weft-node itself, for tests that need a process of another user.
func TestMain(m *testing.M) {
	if os.Getenv("WEFT_NODE_TEST_MAIN") != "" {
		main()
		return
	}
	flag.Parse()
	os.Exit(m.Run())
}

// podNS is a namespace with these addresses on eth0.
func podNS(t *testing.T, addrs ...string) *netns.Handle {
	t.Helper()
	ns, err := netns.New()
	if netns.Unsupported(err) {
		t.Skipf("SKIPPED, NOT TESTED: network namespaces need CAP_SYS_ADMIN: %v", err)
	}
	check(t, err)
	t.Cleanup(func() { ns.Close() })
	check(t, ns.Do(func() error {
		if err := netns.SetLoopbackUp(); err != nil {
			return err
		}
		v := netlink.NewVeth(netlink.LinkAttrs{Name: "eth0", TxQLen: -1})
		v.PeerName = "peer0"
		if err := netlink.LinkAdd(v); err != nil {
			return err
		}
		eth, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		for _, a := range addrs {
			p := netip.MustParsePrefix(a)
			if err := netlink.AddrAdd(eth, &netlink.Addr{IPNet: &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}}); err != nil {
				return err
			}
		}
		return netlink.LinkSetUp(eth)
	}))
	return ns
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// run is one command line inside ns.
func run(t *testing.T, ns *netns.Handle, env map[string]string, args ...string) (stdout string, err error) {
	t.Helper()
	var out, errs bytes.Buffer
	err = ns.Do(func() error {
		c := rootCommand(&out, &errs, func(k string) string { return env[k] })
		c.SetArgs(args)
		return c.ExecuteContext(t.Context())
	})
	t.Logf("%q: %s%v", args, errs.String(), err)
	return out.String(), err
}

func TestDryRunPrintsThePlan(t *testing.T) {
	ns := podNS(t, "10.244.1.5/24")
	for _, tt := range []struct {
		name string
		env  map[string]string
		args string
	}{
		{"default", nil, ""},
		{"istio", nil, "-p 15001 -z 15006 -u 1337 -m REDIRECT -i * -x 10.1.0.0/16 -b * -d 15090,15021,15020 -o 3306,443"},
		{"narrow", nil, "-i 10.96.0.0/12 -q 9999 -b 80,8080 -c eth1"},
		{"variables", map[string]string{"ISTIO_SERVICE_EXCLUDE_CIDR": "10.1.0.0/16", "ISTIO_INBOUND_PORTS": "8080", "PROXY_UID": "2000,2001"}, "-g 2000"},
		{"names", nil, "--redirect-dns --resolv-conf testdata/resolv.conf"},
		{"names-all", map[string]string{"ISTIO_META_DNS_CAPTURE": "true"}, "--capture-all-dns"},
		{"mark", nil, "--proxy-uid= --proxy-gid= --proxy-mark=0x539 -p 25001 -z 25006"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := run(t, ns, tt.env, append([]string{"capture", "--dry-run"}, strings.Fields(tt.args)...)...)
			check(t, err)
			path := filepath.Join("testdata", tt.name+".nft")
			if *update {
				check(t, os.MkdirAll("testdata", 0o755))
				check(t, os.WriteFile(path, []byte(got), 0o644))
			}
			want, err := os.ReadFile(path)
			check(t, err)
			if d := cmp.Diff(string(want), got); d != "" {
				t.Errorf("-want +got:\n%s", d)
			}
		})
	}
	if got := ruleset(t, ns); strings.Contains(got, "weft_capture") {
		t.Errorf("a dry run left rules:\n%s", got)
	}
}

func ruleset(t *testing.T, ns *netns.Handle) string {
	t.Helper()
	if _, err := exec.LookPath("nft"); err != nil {
		t.Skip("SKIPPED, NOT TESTED: the nft command is not installed")
	}
	var out []byte
	check(t, ns.Do(func() (err error) {
		out, err = exec.Command("nft", "list", "ruleset").CombinedOutput()
		return err
	}))
	return string(out)
}

func TestCaptureIsIdempotentAndCleansUp(t *testing.T) {
	ns := podNS(t, "10.244.1.5/24")
	_, err := run(t, ns, nil, "capture", "-o", "3306")
	check(t, err)
	first := ruleset(t, ns)
	if !strings.Contains(first, "dport 3306 return") || !strings.Contains(first, "skuid 1337 return") {
		t.Errorf("rules:\n%s", first)
	}
	_, err = run(t, ns, nil, "capture", "-o", "3306")
	check(t, err)
	if d := cmp.Diff(first, ruleset(t, ns)); d != "" {
		t.Errorf("a second run changes the rules: -first +second:\n%s", d)
	}
	_, err = run(t, ns, nil, "capture", "--cleanup")
	check(t, err)
	if got := ruleset(t, ns); strings.Contains(got, "weft_capture") {
		t.Errorf("cleanup left:\n%s", got)
	}
}

func TestCaptureRefuses(t *testing.T) {
	v4, none := podNS(t, "10.244.1.5/24"), podNS(t)
	dual := podNS(t, "10.244.1.5/24", "fd00:10::5/64")
	for _, tt := range []struct {
		name string
		ns   *netns.Handle
		args string
		want string
	}{
		{"TPROXY", v4, "-m TPROXY", "TPROXY is not supported"},
		{"a port that is none", v4, "-o 99999", `--istio-local-outbound-ports-exclude "99999"`},
		{"a range that is none", v4, "-x 10.0.0.0", `--istio-service-exclude-cidr "10.0.0.0"`},
		{"a user by name", v4, "-u nobody", "not a number"},
		{"a proxy that nothing tells", v4, "--proxy-uid= --proxy-gid=", "would come back"},
		{"one port for both", v4, "-p 15006", "must differ"},
		{"a pod without network", none, "", "no address yet"},
		{"a pod of two families", dual, "", "IPv6 is not captured"},
		{"an argument", v4, "now", "unknown command"},
		{"a flag that istio-iptables has and we do not", v4, "--drop-invalid", "unknown flag: --drop-invalid"},
		{"names, neither yes nor no", v4, "--redirect-dns=ALL", `--redirect-dns (ISTIO_META_DNS_CAPTURE) "ALL": want true or false`},
		{"all names without any", v4, "--capture-all-dns", "no meaning without --redirect-dns"},
		{"names of nobody", v4, "--redirect-dns --resolv-conf testdata/resolv6.conf", "no nameserver with an IPv4 address"},
		{"names of a file that is not there", v4, "--redirect-dns --resolv-conf testdata/no.conf", "no such file"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := run(t, tt.ns, nil, append([]string{"capture"}, strings.Fields(tt.args)...)...)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error = %v, want one with %q", err, tt.want)
			}
		})
	}
}

func TestModeNoneDoesNothing(t *testing.T) {
	ns := podNS(t)
	if _, err := run(t, ns, nil, "capture", "-m", "NONE"); err != nil {
		t.Error(err)
	}
}

// A process without the capability is told what is missing.
func TestMissingCapabilityIsNamed(t *testing.T) {
	ns := podNS(t, "10.244.1.5/24")
	exe := filepath.Join(t.TempDir(), "weft-node")
	b, err := os.ReadFile("/proc/self/exe")
	check(t, err)
	check(t, os.WriteFile(exe, b, 0o755))
	for dir := filepath.Dir(exe); dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		check(t, os.Chmod(dir, 0o755)) // another user runs it
	}
	var out []byte
	var failed error
	check(t, ns.Do(func() error {
		c := exec.Command(exe, "capture")
		c.Env = []string{"WEFT_NODE_TEST_MAIN=1"}
		c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 1337, Gid: 1337}}
		out, failed = c.CombinedOutput()
		return nil
	}))
	if failed == nil || !strings.Contains(string(out), "CAP_NET_ADMIN is missing") {
		t.Errorf("%v: %s", failed, out)
	}
}

func TestVersion(t *testing.T) {
	var out bytes.Buffer
	c := rootCommand(&out, &out, os.Getenv)
	c.SetArgs([]string{"--version"})
	check(t, c.ExecuteContext(t.Context()))
	if !strings.HasPrefix(out.String(), "weft-node devel (go") {
		t.Errorf("--version = %q", out.String())
	}
}
