package testbed

import (
	"fmt"
	"path/filepath"

	"golang.org/x/sys/unix"
)

const containerdSocket = "/run/containerd/containerd.sock"

// containerdConfig: everything below the node's directory or /run, which is the node's own.
// restrict_oom_score_adj: without CAP_SYS_RESOURCE runc cannot lower it, and every pause container asks for that.
func containerdConfig(dir string) string {
	return fmt.Sprintf(`version = 2
root = %q
state = "/run/containerd"
disabled_plugins = ["io.containerd.snapshotter.v1.btrfs","io.containerd.snapshotter.v1.zfs","io.containerd.snapshotter.v1.aufs","io.containerd.snapshotter.v1.devmapper"]
[grpc]
  address = %q
[plugins."io.containerd.internal.v1.opt"]
  path = "/run/containerd-opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = %q
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/opt/cni/bin"
    conf_dir = "/etc/cni/net.d"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      SystemdCgroup = false
`, filepath.Join(dir, "containerd"), containerdSocket, pauseImage)
}

// networkConfig is the CNI configuration: a bridge with the node's addresses, and host ports.
func networkConfig(n Node) string {
	return fmt.Sprintf(`{"cniVersion":"1.0.0","name":"podnet","plugins":[
 {"type":"bridge","bridge":"cni0","isGateway":true,"ipMasq":false,"hairpinMode":true,
  "ipam":{"type":"host-local","dataDir":"/run/cni-ipam","ranges":[[{"subnet":%q}]],"routes":[{"dst":"0.0.0.0/0"}]}},
 {"type":"portmap","capabilities":{"portMappings":true}}]}
`, n.Pods())
}

func kubeletConfig(bed *Bed, n Node, pki, dir string) string {
	return fmt.Sprintf(`apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: %[1]s/ca.crt}}
authorization: {mode: Webhook}
tlsCertFile: %[1]s/kubelet-server-%[2]s.crt
tlsPrivateKeyFile: %[1]s/kubelet-server-%[2]s.key
address: 0.0.0.0
cgroupDriver: cgroupfs
cgroupRoot: /%[3]s
failCgroupV1: false
failSwapOn: false
clusterDNS: [%[4]s]
clusterDomain: cluster.local
resolvConf: /run/resolv.conf
containerRuntimeEndpoint: unix://%[5]s
oomScoreAdj: 0
maxOpenFiles: %[6]d
evictionHard: {memory.available: 100Mi, nodefs.available: 200Mi, imagefs.available: 200Mi}
imageGCHighThresholdPercent: 100
registerWithTaints: []
podLogsDir: %[7]s/podlogs
volumePluginDir: %[7]s/volplugins
syncFrequency: 10s
serializeImagePulls: false
registryPullQPS: 0
kubeAPIQPS: 100
kubeAPIBurst: 200
nodeStatusUpdateFrequency: 5s
nodeStatusReportFrequency: 1m
nodeLeaseDurationSeconds: 20
`, pki, n, bed.cgroup(n), DNSServiceIP, containerdSocket, openFiles(), dir)
}

// openFiles is the hard limit of descriptors: the kubelet's default is above what an unprivileged root may set.
func openFiles() uint64 {
	var l unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &l) != nil {
		return 1024
	}
	return min(l.Max, 1_000_000)
}

// proxyConfig: the conntrack values are 0 because they are the machine's, not the namespace's.
func proxyConfig(n Node, pki, mode string) string {
	return fmt.Sprintf(`apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
clientConnection: {kubeconfig: %s/kube-proxy.kubeconfig}
mode: %s
clusterCIDR: %s
hostnameOverride: %s
oomScoreAdj: 0
conntrack: {maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
nftables: {minSyncPeriod: 100ms, syncPeriod: 30s}
iptables: {minSyncPeriod: 100ms, syncPeriod: 30s}
`, pki, mode, PodRange, n)
}

func etcdArgs(dir, client, peer string) []string {
	return []string{
		"--name=n1", "--data-dir=" + filepath.Join(dir, "etcd"),
		"--listen-client-urls=" + client, "--advertise-client-urls=" + client,
		"--listen-peer-urls=" + peer, "--initial-advertise-peer-urls=" + peer, "--initial-cluster=n1=" + peer,
		"--unsafe-no-fsync", "--log-level=warn", // it lives as long as a test: no need to survive the machine
	}
}

// apiServer is what differs between the API server of a cluster and one alone.
type apiServer struct {
	etcd, bind, advertise, pki, dir string
	port                            int
}

func (s apiServer) args() []string {
	pki := func(name string) string { return filepath.Join(s.pki, name) }
	return []string{
		"--etcd-servers=" + s.etcd, "--bind-address=" + s.bind, fmt.Sprintf("--secure-port=%d", s.port), "--advertise-address=" + s.advertise,
		"--service-cluster-ip-range=" + ServiceRange, "--client-ca-file=" + pki("ca.crt"),
		"--tls-cert-file=" + pki("apiserver.crt"), "--tls-private-key-file=" + pki("apiserver.key"),
		"--kubelet-client-certificate=" + pki("apiserver-kubelet-client.crt"), "--kubelet-client-key=" + pki("apiserver-kubelet-client.key"),
		"--kubelet-certificate-authority=" + pki("ca.crt"), "--kubelet-preferred-address-types=InternalIP,Hostname",
		"--service-account-issuer=https://kubernetes.default.svc.cluster.local",
		"--service-account-key-file=" + pki("sa.pub"), "--service-account-signing-key-file=" + pki("sa.key"),
		"--proxy-client-cert-file=" + pki("front-proxy-client.crt"), "--proxy-client-key-file=" + pki("front-proxy-client.key"),
		"--requestheader-client-ca-file=" + pki("ca.crt"), "--requestheader-allowed-names=front-proxy-client",
		"--requestheader-username-headers=X-Remote-User", "--requestheader-group-headers=X-Remote-Group",
		"--requestheader-extra-headers-prefix=X-Remote-Extra-",
		"--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction", "--allow-privileged=true",
		"--cert-dir=" + filepath.Join(s.dir, "apiserver"), "--v=1",
	}
}
