package archtest

// rule is one line of the table.
type rule struct {
	// pkg is a package's path within the module. With /... it stands for all packages below, for
	// families such as filters. The longest line that matches a package is the one that holds.
	pkg string
	// ours are the packages of ours that it may import, separated by spaces; x/...
	// is x and everything below; "*" is everything. Packages under the same line may always import each other.
	ours string
	// outside are the modules, or parts of them, that it may import beyond the standard
	// library; "*" is every module.
	outside string
}

// Groups of outside modules that many lines name.
const (
	protobuf   = " google.golang.org/protobuf "
	envoy      = " github.com/envoyproxy/go-control-plane/envoy github.com/cncf/xds/go google.golang.org/protobuf "
	grpc       = " google.golang.org/grpc google.golang.org/genproto/googleapis/rpc/status "
	kubeAPI    = " k8s.io/api k8s.io/apimachinery "
	istioAPI   = " istio.io/api "
	gatewayAPI = " sigs.k8s.io/gateway-api/apis "
	unix       = " golang.org/x/sys/unix "
)

// rules is the table: what non-test files may import. Tests may import more, see testRule.
var rules = []rule{
	// Shared leaves: know neither plane.
	{"spiffe", "", ""},
	{"xds", "", envoy},
	{"xds/fields", "", protobuf},
	{"xds/nds", "xds/fields", protobuf},
	{"xds/canon", "xds", envoy + "go.yaml.in/yaml/v3"},
	{"xds/patch", "xds", protobuf},
	{"xds/xdstest", "xds xds/canon spiffe", envoy + grpc},
	{"api/...", "", protobuf + "k8s.io/apimachinery"},
	{"api/admin/client", "api/admin internal/backoff", unix},
	{"internal/archtest", "", ""},
	{"internal/backoff", "", ""},
	{"internal/drain", "", ""},
	{"internal/localhttp", "", ""},
	{"internal/memnet", "", ""}, // for tests only
	{"internal/sockcall", "", unix},
	{"internal/version", "", ""},

	// Data plane: bytes, messages, contracts.
	{"proxy/netio/record", "", "golang.org/x/crypto/chacha20poly1305"},
	{"proxy/netio", "internal/sockcall proxy/netio/record", unix},
	{"proxy/stream", "spiffe", ""},
	{"proxy/stream/streamtest", "internal/memnet proxy/stream proxy/netio spiffe", "github.com/google/go-cmp/cmp"},
	{"proxy/http1", "proxy/netio proxy/stream", ""},
	{"proxy/http2", "proxy/netio proxy/stream", "golang.org/x/net"},
	{"proxy/route", "proxy/stream", ""},
	{"proxy/filter", "proxy/stream", ""},
	{"proxy/config", "proxy/filter proxy/route proxy/stream spiffe", ""},
	{"proxy/telemetry", "proxy/config proxy/stream spiffe", ""},

	// Data plane: filters. Each is deletable; filterset is the one list.
	{"proxy/filter/matcher", "proxy/route", envoy},
	{"proxy/filter/rbacrules", "proxy/filter/matcher proxy/route proxy/stream", envoy},
	{"proxy/filter/http/...", "proxy/config proxy/filter proxy/filter/matcher proxy/filter/rbacrules proxy/route proxy/stream proxy/telemetry proxy/transport/exchange spiffe", envoy},
	{"proxy/filter/network/...", "proxy/config proxy/filter proxy/filter/matcher proxy/filter/rbacrules proxy/route proxy/stream proxy/telemetry proxy/transport/exchange spiffe", envoy},
	{"proxy/filterset", "proxy/compile proxy/filter proxy/filter/... proxy/stream proxy/telemetry", envoy},

	// Data plane: configuration in.
	{"proxy/compile", "proxy/config proxy/filter proxy/filter/matcher proxy/route proxy/stream proxy/telemetry spiffe xds", envoy},
	{"proxy/hotrestart", "", unix},
	{"proxy/xdsclient", "internal/backoff proxy/identity proxy/telemetry spiffe xds xds/patch", envoy + grpc},
	{"proxy/identity", "internal/backoff proxy/telemetry spiffe", grpc + "istio.io/api/security"},
	{"proxy/identity/identitytest", "proxy/identity spiffe", grpc + "istio.io/api/security"},

	// Data plane: traffic.
	{"proxy/listener", "internal/backoff internal/drain proxy/config proxy/netio proxy/stream proxy/telemetry proxy/transport spiffe", unix},
	{"proxy/tcp", "internal/backoff internal/drain proxy/config proxy/filter proxy/netio proxy/route proxy/stream proxy/telemetry proxy/transport proxy/transport/exchange proxy/upstream spiffe", unix},
	{"proxy/overload", "", ""},
	{"proxy/hcm", "internal/backoff internal/drain proxy/config proxy/filter proxy/http1 proxy/http2 proxy/netio proxy/route proxy/stream proxy/telemetry proxy/upstream proxy/upstream/outlier spiffe", "github.com/cespare/xxhash/v2"},
	{"proxy/upstream", "internal/backoff internal/drain proxy/config proxy/http1 proxy/http2 proxy/netio proxy/route proxy/stream proxy/telemetry proxy/transport proxy/upstream/... spiffe", ""},
	{"proxy/upstream/lb", "proxy/config", "github.com/cespare/xxhash/v2"},
	{"proxy/upstream/outlier", "proxy/config", ""},
	{"proxy/transport", "proxy/config proxy/identity proxy/netio proxy/route proxy/stream proxy/transport/exchange spiffe", unix},
	{"proxy/transport/exchange", "proxy/stream", protobuf},

	// Data plane: wiring.
	{"proxy/admin", "api/admin internal/drain internal/version proxy/config proxy/identity proxy/stream proxy/telemetry proxy/upstream spiffe xds xds/nds", envoy + grpc},
	{"proxy/server", "api/admin internal/... proxy/... spiffe xds xds/nds xds/patch", "*"},
	{"proxy/proxytest", "api/admin internal/... proxy/... spiffe xds xds/canon xds/xdstest", "*"},

	// Control plane: configuration source → model → snapshot → xDS.
	{"model", "spiffe", ""},
	{"control/convert", "api/... model spiffe", protobuf + kubeAPI + istioAPI + gatewayAPI + "go.yaml.in/yaml/v3 sigs.k8s.io/yaml"},
	{"control/derive", "model", ""},
	{"control/derive/derivetest", "control/derive model", "github.com/google/go-cmp"},
	{"control/gatewayapi", "control/convert control/derive model", kubeAPI + gatewayAPI},
	{"control/ingress", "control/derive model", ""},
	{"control/analyze", "api/... control/convert control/gatewayapi control/ingress control/snapshot model spiffe", kubeAPI + gatewayAPI},
	{"control/source", "api/... control/convert internal/backoff model", ""},
	{"control/source/file", "api/... control/convert control/source internal/backoff model", "github.com/fsnotify/fsnotify"},
	{"control/source/store", "api/... control/convert control/source internal/backoff model", "go.etcd.io/bbolt"},
	{"control/source/merge", "api/... control/convert control/source model", ""},
	{"control/source/kube", "api/... control/convert control/kube/kubeclient control/source model", kubeAPI + "k8s.io/client-go k8s.io/klog/v2 github.com/go-logr/logr"},
	{"control/kube", "api/... control/ca control/convert control/gatewayapi control/kube/kubeclient control/source/kube control/status model spiffe", kubeAPI + "sigs.k8s.io/gateway-api/apis k8s.io/client-go k8s.io/klog/v2 github.com/go-logr/logr golang.org/x/time/rate"},
	{"control/kube/gateway", "control/gatewayapi control/inject control/kube/kubeclient model", kubeAPI + "k8s.io/client-go k8s.io/klog/v2 github.com/go-logr/logr golang.org/x/time/rate sigs.k8s.io/yaml"},
	{"control/kube/kubeclient", "", kubeAPI + "k8s.io/client-go"},
	{"control/kube/kubetest", "", "k8s.io/client-go"}, // for tests only
	{"control/source/sourcetest", "api/... control/convert control/source model", ""},
	{"control/snapshot", "model spiffe", ""},
	{"control/translate", "control/snapshot model spiffe xds xds/nds", envoy + istioAPI},
	{"control/translate/translatetest", "api/admin control/convert control/gatewayapi control/ingress control/snapshot model xds", ""},
	{"control/grpcstream", "internal/sockcall", grpc + unix + "golang.org/x/net/http2/hpack"},
	{"control/xdsserver", "control/grpcstream internal/drain spiffe xds xds/patch xds/fields", envoy + grpc},
	{"control/ca", "spiffe", grpc + "istio.io/api/security"},
	{"control/admission", "api/admin control/analyze control/convert control/inject model", kubeAPI + "github.com/prometheus/client_golang"},
	{"control/inject", "", protobuf + kubeAPI + istioAPI + "sigs.k8s.io/yaml go.yaml.in/yaml/v3"},
	{"control/status", "api/... control/snapshot control/xdsserver model spiffe xds", ""},
	{"control/server", "api/... control/... internal/... model spiffe xds xds/nds", "*"},
	{"control/controltest", "api/... control/... internal/... model spiffe xds", "*"},

	// Node: redirect and names, for one machine.
	{"node/netns", "", unix + "github.com/vishvananda/netlink"},
	{"node/capture", "node/netns", unix + "github.com/google/nftables"},
	{"node/cni", "node/capture node/netns", "github.com/containernetworking/cni"},
	{"node/cni/agent", "control/kube/kubeclient node/capture node/cni node/netns", kubeAPI + "k8s.io/client-go k8s.io/klog/v2 github.com/go-logr/logr github.com/prometheus/client_golang"},
	{"node/cni/chain", "", "github.com/fsnotify/fsnotify"},
	{"node/dns", "", "golang.org/x/net/dns/dnsmessage"},

	// Local runtime: a client of the control plane's socket, with processes of its own.
	{"local/podspec", "node/capture", kubeAPI},
	{"local/rollout", "", ""},
	{"local/manifest", "api/... local/podspec", kubeAPI + "sigs.k8s.io/yaml"},
	{"local/logs", "", ""},
	{"local/probe", "local/podspec", grpc},
	{"local/network", "node/netns", "github.com/vishvananda/netlink"},
	{"local/sandbox", "node/netns", unix},
	{"local/process", "local/sandbox", unix},
	{"local/pod", "api/... internal/backoff internal/drain local/... node/...", unix},
	{"local/services", "api/... local/... node/...", kubeAPI},
	{"local/api", "api/... internal/... local/...", unix},
	{"local", "api/... internal/... local/... node/... spiffe", unix + kubeAPI},

	// People.
	{"observe/...", "api/... internal/... model xds", "*"},
	{"observe/traffic", "", ""},
	{"observe/console", "api/... observe/traffic", "sigs.k8s.io/yaml"},
	{"console", "", ""},
	{"cli/...", "*", "*"},
	{"cmd/...", "*", "*"},

	// What is installed on Kubernetes.
	{"deploy", "", ""},
	{"deploy/crdgen", "control/convert", "sigs.k8s.io/yaml"},
	{"deploy/render", "deploy", "github.com/Masterminds/sprig/v3 sigs.k8s.io/yaml"},

	// The sample knows nothing of a mesh: only its manifests are for one.
	{"samples/bookinfo", "", ""},
	{"samples/bookinfo/cmd/bookinfo", "samples/bookinfo/internal/...", ""},
	{"samples/bookinfo/internal/...", "", ""},

	// Images: the standard library only, so that they are made before anything else is there.
	{"deploy/image", "", ""},
	{"deploy/image/build", "deploy/image", ""},

	// Tests of the whole see the whole.
	{"test/...", "*", "*"},
	{"docs", "", ""}, // only a test, which keeps the documentation true
}

// reach is a rule about everything that a package links, directly or not.
type reach struct {
	from    string // package, or x/...
	ours    string // packages that must not be reached
	outside string // modules that must not be imported by anything that is reached
	why     string
}

// reaches are the promises about whole programs and planes.
var reaches = []reach{
	// Of node it links dns alone, which answers the queries of a pod's programs (docs/adr/0009).
	{"cmd/weft-proxy", "control/... local/... observe/... console/... cli/... model node/capture node/cni/... node/netns samples/...",
		"k8s.io sigs.k8s.io github.com/prometheus go.etcd.io github.com/fsnotify github.com/google/nftables",
		"weft-proxy links no Kubernetes, no metric store, no console and no control plane"},
	{"cmd/weft-node", "control/... local/... observe/... console/... cli/... model proxy/... samples/... xds",
		"k8s.io sigs.k8s.io github.com/prometheus go.etcd.io github.com/envoyproxy google.golang.org/grpc istio.io",
		"weft-node is small: it touches the network of pods and nodes and knows neither plane"},
	{"proxy/...", "control/... model", "", "the planes meet only on the wire"},
	{"control/...", "proxy/...", "", "the planes meet only on the wire"},
	{"xds/...", "control/... proxy/... model", "", "the wire contract knows neither plane"},
	{"model", "", "google.golang.org/protobuf github.com/envoyproxy k8s.io istio.io", "the model is plain values"},
	{"control/snapshot", "", "google.golang.org/protobuf github.com/envoyproxy k8s.io istio.io", "the World is made of plain values"},
	{"local/...", "proxy/... control/server control/xdsserver control/translate", "", "the local runtime talks to both planes over sockets, like anybody else"},
}

// closed are packages that only the named ones may import, wherever the table would let them.
var closed = []struct{ pkg, by, why string }{
	{"cli/...", "cli/... cmd/... test/...", "nothing imports cli but cmd"},
	{"cmd/...", "", "commands are imported by nobody"},
	{"control/server", "cli/... cmd/... control/controltest test/...", "wiring is at the top"},
	{"proxy/server", "cmd/... proxy/proxytest test/...", "wiring is at the top"},
	{"test/...", "test/...", "tests of the whole are imported by nobody"},
}

// testRule is what test files may import beyond their package's line: anything of ours
// but the other plane and what closed forbids, and any outside module.
// Test helpers (packages whose name ends in test, and these) may be imported by tests and other helpers only.
var testHelpers = []string{"internal/memnet"}
