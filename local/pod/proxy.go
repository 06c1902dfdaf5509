package pod

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"weft.mesh/weft/local/podspec"
	"weft.mesh/weft/local/process"
)

// ProxyDNSPort is where the node answers names to proxies: without those of
// which the answer leads back to them.
const ProxyDNSPort = 15053

// Ports of the proxy that the runtime uses.
const readyPort = 15021

// Times of a proxy's life.
const (
	tokenTimeout = 2 * time.Second // for one try to get a join token at a proxy's start
	tokenRetry   = time.Second     // between tries while the control plane is away
)

// proxyReadiness is the probe of a sidecar: often while it starts, then seldom, because the proxy notices by itself what
// is wrong. Time-out and threshold are those of Istio's injection: a proxy that waits for a processor stays in service.
var proxyReadiness = podspec.Probe{
	HTTP:   &podspec.HTTPProbe{Host: "127.0.0.1", Port: readyPort, Path: "/healthz/ready"},
	Period: 2 * time.Second, Timeout: 3 * time.Second, SuccessThreshold: 1, FailureThreshold: 4,
}

// proxyArgs is the command line of the proxy beside (or instead of) the
// program. inherited are the ports of listeners passed on, in the order of
// their descriptors from 3.
func (p *Pod) proxyArgs(inherited []uint16) []string {
	role := "sidecar"
	if p.spec.Gateway {
		role = "gateway"
	}
	args := []string{p.env.ProxyPath, role,
		"--id", p.name, "--namespace", p.spec.Namespace, "--ip", p.ip.String(),
		"--service-account", p.spec.ServiceAccount, "--workload", p.spec.Name,
		"--xds", p.env.XDSAddress, "--ca-root", p.rootFile(),
		"--token-file", p.tokenFile(), "--state-dir", p.proxyDir(),
		"--trust-domain", p.env.TrustDomain, "--domain", p.env.Domain, "--cluster", p.env.Cluster,
		"--access-log-file", "/dev/stdout",
		"--dns-server", netip.AddrPortFrom(p.env.Network.Node.Addr(), ProxyDNSPort).String(), "--drain-duration", p.drainTime().String(),
	}
	if p.Captured() {
		args = append(args, "--dns-capture")
	}
	for _, k := range slices.Sorted(maps.Keys(p.labels)) {
		args = append(args, "--label", k+"="+p.labels[k])
	}
	for i, port := range inherited {
		args = append(args, "--inherit-listener", strconv.Itoa(int(port))+"="+strconv.Itoa(3+i))
	}
	return args
}

// drainTime is how long the sidecar may finish what it carries: the whole time
// that it has, but never more than the pod's grace period leaves.
func (p *Pod) drainTime() time.Duration { return min(p.env.DrainTimeout, p.spec.Grace) }

func (p *Pod) proxyDir() string {
	return filepath.Join(p.env.StateDir, "proxies", p.spec.Namespace+"_"+p.name)
}

func (p *Pod) tokenFile() string { return filepath.Join(p.proxyDir(), "join-token") }

// rootFile is the proxy's copy of the roots: it sees no more of the state
// directory than its own folder, and reads them once, when it starts.
func (p *Pod) rootFile() string { return filepath.Join(p.proxyDir(), "ca-root.pem") }

// startProxy starts the proxy, with a fresh join token if one can be had and
// with the machine's listeners for a gateway's host ports.
func (p *Pod) startProxy(ctx context.Context, ports []podspec.Port) (*process.Process, error) {
	return p.launchProxy(ctx, ports, nil)
}

// launchProxy is startProxy; with notify it starts a successor of the running one.
func (p *Pod) launchProxy(ctx context.Context, ports []podspec.Port, notify *os.File) (*process.Process, error) {
	if err := os.MkdirAll(p.proxyDir(), 0o700); err != nil {
		return nil, fmt.Errorf("pod %s: make the proxy's folder: %w", p.name, err)
	}
	if err := p.copyRoots(); err != nil {
		return nil, fmt.Errorf("pod %s: %w", p.name, err)
	}
	p.refreshToken(ctx)
	files, inherited, err := p.hostListeners(ports)
	if err != nil {
		return nil, err
	}
	args := p.proxyArgs(inherited)
	if notify != nil {
		args = append(args, hotArgs(3+len(files))...)
		files = append(files, notify)
	}
	return process.Start(p.sandbox, process.Spec{
		Argv: args, Env: p.env.processEnv(p.name), Dir: p.workDir(),
		Stdout: p.logOf(podspec.ProxyContainer), Stderr: p.logOf(podspec.ProxyContainer), Files: files, Sidecar: true,
	})
}

// hostListeners finds the machine's listeners for the container's host ports.
func (p *Pod) hostListeners(ports []podspec.Port) (files []*os.File, inherited []uint16, err error) {
	for _, port := range ports {
		if port.HostPort == 0 {
			continue
		}
		f, ok := p.env.HostPorts[port.HostPort]
		if !ok {
			return nil, nil, fmt.Errorf("pod %s: host port %d is not open on this machine; open: %v",
				p.name, port.HostPort, slices.Sorted(maps.Keys(p.env.HostPorts)))
		}
		files, inherited = append(files, f), append(inherited, port.Port)
	}
	return files, inherited, nil
}

// refreshToken writes a new join token for the proxy. While the control plane
// is away the proxy starts without one, from what it keeps on disk, and the
// token follows as soon as it can be had.
func (p *Pod) refreshToken(ctx context.Context) {
	first, cancel := context.WithTimeout(ctx, tokenTimeout)
	defer cancel()
	err := p.writeToken(first)
	if err == nil {
		return
	}
	p.logOf(podspec.ProxyContainer).Printf("no join token yet: %v", err)
	if !p.tokenPending.CompareAndSwap(false, true) {
		return
	}
	p.wg.Go(func() {
		defer p.tokenPending.Store(false)
		for sleep(ctx, tokenRetry) {
			if p.writeToken(ctx) == nil {
				return
			}
		}
	})
}

func (p *Pod) writeToken(ctx context.Context) error {
	if p.env.Tokens == nil {
		return errors.New("no control plane is known")
	}
	token, err := p.env.Tokens.Token(ctx, p.spec.Namespace, p.spec.ServiceAccount)
	if err != nil {
		return err
	}
	return replace(p.tokenFile(), []byte(token))
}

func (p *Pod) copyRoots() error {
	pem, err := os.ReadFile(p.env.RootFile)
	if err != nil {
		return fmt.Errorf("read the roots: %w", err)
	}
	return replace(p.rootFile(), pem)
}

// replace writes a file in such a way that readers see the old or the new one.
func replace(path string, content []byte) error {
	temp := path + ".new"
	if err := os.WriteFile(temp, content, 0o600); err != nil {
		return fmt.Errorf("write %s: %w", filepath.Base(path), err)
	}
	return os.Rename(temp, path)
}
