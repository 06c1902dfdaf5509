package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	kubelabels "k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	gw "sigs.k8s.io/gateway-api/apis/v1"

	"weft.mesh/weft/api/admin"
	"weft.mesh/weft/control/ca"
	"weft.mesh/weft/control/convert"
	"weft.mesh/weft/control/gatewayapi"
	"weft.mesh/weft/control/inject"
	"weft.mesh/weft/control/kube"
	"weft.mesh/weft/control/kube/kubeclient"
	"weft.mesh/weft/control/server"
	"weft.mesh/weft/control/snapshot"
	kubesource "weft.mesh/weft/control/source/kube"
	"weft.mesh/weft/control/source/merge"
	"weft.mesh/weft/internal/version"
	"weft.mesh/weft/model"
)

// Behaviour of a replica towards its proxies, as Istio's defaults where it has any.
const (
	replicaConnectionAge = 30 * time.Minute
	replicaDrain         = 10 * time.Second
	replicaStreamRate    = 200 // new streams a second
	apiTimeout           = time.Minute
)

// defaultRevision is the one whose objects have no suffix.
const defaultRevision = "default"

// kubernetesOptions are the flags of weft control-plane --kubernetes.
type kubernetesOptions struct {
	on         bool
	kubeconfig string
	revision   string
	namespace  string
	plaintext  bool
	istioClass bool   // GatewayClasses and IngressClasses of Istio's controllers are ours too
	untaint    string // namespace of the node agent whose nodes are untainted; empty: none are
	drain      time.Duration
}

func (o *kubernetesOptions) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.BoolVar(&o.on, "kubernetes", false, "serve a Kubernetes cluster: its API server is the source of configuration")
	f.StringVar(&o.kubeconfig, "kubeconfig", "", "with --kubernetes, outside a pod: the kubeconfig file of the cluster")
	f.StringVar(&o.revision, "revision", defaultRevision, "with --kubernetes: the revision of this control plane; its objects are called weft-REVISION, the ConfigMap istio-REVISION")
	f.StringVar(&o.namespace, "namespace", "", "with --kubernetes: the namespace that the control plane is in (default $POD_NAMESPACE, then weft-system)")
	f.BoolVar(&o.plaintext, "plaintext-xds", false, "with --kubernetes: serve xDS without TLS on 15010 to everybody who reaches the pod")
	f.BoolVar(&o.istioClass, "istio-gateway-class", false, "with --kubernetes: serve GatewayClasses of Istio's controller as well; not beside an Istio")
	f.StringVar(&o.untaint, "untaint-nodes", "", "with --kubernetes: take the taint cni.istio.io/not-ready from nodes whose node agent, in this namespace, is ready")
	f.DurationVar(&o.drain, "drain", replicaDrain, "with --kubernetes: how long a stopping replica takes to send its proxies to others")
}

// configMap is the name of the ConfigMap with the mesh's settings, without the revision: Istio's, so that its tools find them.
const configMap = "istio"

// name is what the objects of the revision are called.
func (o *kubernetesOptions) name(prefix string) string {
	if o.revision == "" || o.revision == defaultRevision {
		return prefix
	}
	return prefix + "-" + o.revision
}

// replica is one control plane on Kubernetes.
type replica struct {
	o      *kubernetesOptions
	set    server.Settings
	base   model.Mesh // before the ConfigMap
	log    *slog.Logger
	client *kubeclient.Client
	source *kubesource.Source
	server *server.Server
	key    kube.CASecret
	signs  ca.Material // at the start
	ca     *ca.CA
	mesh   kube.MeshConfig
	text   string        // of the ConfigMap at the start
	roots  chan struct{} // the roots changed; 1 slot for each writer
	bundle chan struct{}
	trust  chan struct{}
	status *kube.Status
	id     string
	// addresses are where Ingresses are reached; nil: not known yet. Leader only.
	addresses atomic.Pointer[[]string]
	// revisions are those beside this one: each writes what is its own.
	revisions *kube.Revisions

	webhooks *webhooks
}

// runKubernetes runs a replica until ctx ends.
func (a *app) runKubernetes(ctx context.Context, o *kubernetesOptions, mesh model.Mesh, set server.Settings) error {
	cfg, err := restConfig(o.kubeconfig)
	if err != nil {
		return withHint(fmt.Errorf("--kubernetes: %w", err), "run it in a pod, or name a cluster with --kubeconfig")
	}
	client, err := kubeclient.New(cfg, "weft-control-plane/"+version.Version)
	if err != nil {
		return err
	}
	o.namespace = cmp.Or(o.namespace, a.env.Getenv("POD_NAMESPACE"), "weft-system")
	host, err := os.Hostname()
	if err != nil {
		return err
	}
	r := &replica{o: o, set: set, base: mesh, log: set.Log, client: client, roots: make(chan struct{}, 1), bundle: make(chan struct{}, 1), trust: make(chan struct{}, 1),
		id: cmp.Or(a.env.Getenv("POD_NAME"), fmt.Sprintf("%s-%d", host, os.Getpid()))}
	r.base.EndpointSlices, r.base.RootNamespace, r.base.Ingress.Istio = true, o.namespace, o.istioClass
	if err := r.start(ctx); err != nil {
		return err
	}
	return r.run(ctx)
}

// restConfig is how to reach the cluster: the pod's own way, or a kubeconfig.
func restConfig(file string) (*rest.Config, error) {
	if file == "" {
		return rest.InClusterConfig()
	}
	file, err := filepath.Abs(file)
	if err != nil {
		return nil, err
	}
	return clientcmd.BuildConfigFromFlags("", file)
}

// start reads what the server cannot be without. An API server that does not
// answer yet is waited for; what is wrong with an object ends the program, which says why.
func (r *replica) start(ctx context.Context) error {
	r.mesh = kube.MeshConfig{Client: r.client, Namespace: r.o.namespace, Name: r.o.name(configMap), Key: "mesh", Log: r.log}
	var err error
	if err = r.patiently(ctx, func(ctx context.Context) (err error) { r.text, err = r.mesh.Load(ctx); return err }); err != nil {
		return err
	}
	mesh, err := r.settings(r.text)
	if err != nil {
		return fmt.Errorf("configmap %s/%s: %w", r.o.namespace, r.mesh.Name, err)
	}
	mesh = snapshot.Defaults(mesh)
	r.set.Mesh = mesh
	r.key = kube.CASecret{Client: r.client, Namespace: r.o.namespace, TrustDomain: mesh.TrustDomain, Log: r.log}
	if err = r.patiently(ctx, func(ctx context.Context) (err error) { r.signs, err = r.key.Load(ctx); return err }); err != nil {
		return err
	}
	if r.ca, err = ca.New(mesh.TrustDomain, r.signs); err != nil {
		return err
	}
	if err := r.sources(mesh); err != nil {
		return err
	}
	r.set.Generation = func(k model.Key) int64 {
		v, _ := r.source.Version(k)
		return v.Generation
	}
	r.set.GatewayAPI = &gatewayapi.Settings{Controllers: r.controllers()}
	attestor := kube.NewAttestor(r.client, mesh.TrustDomain)
	r.set.CA, r.set.Attest, r.set.AttestCaller = r.ca, attestor.Attest, attestor.Caller
	r.set.Name, r.set.Namespace, r.set.Local = r.id, r.o.namespace, true
	r.set.ReadsSecrets = kube.NewSecretReader(r.client).MayRead
	r.set.ServerNames = r.names()
	r.set.Plaintext = server.PlaintextOff
	if r.o.plaintext {
		r.set.Plaintext = server.PlaintextAddress
	}
	r.set.MaxConnectionAge, r.set.Drain, r.set.StreamRate = replicaConnectionAge, r.o.drain, replicaStreamRate
	if err := r.makeWebhooks(ctx); err != nil {
		return err
	}
	if r.server, err = server.New(r.set); err != nil {
		return err
	}
	return r.server.Register(r.webhooks.handler.Collectors()...)
}

// controllers are whose GatewayClasses are served.
func (r *replica) controllers() []string {
	if r.o.istioClass {
		return []string{gatewayapi.Controller, gatewayapi.IstioController}
	}
	return []string{gatewayapi.Controller}
}

// patiently tries again while the API server gives no answer.
func (r *replica) patiently(ctx context.Context, f func(context.Context) error) error {
	said := false
	for {
		part, cancel := context.WithTimeout(ctx, apiTimeout)
		err := f(part)
		cancel()
		if err == nil || ctx.Err() != nil || !noAnswer(err) {
			return err
		}
		if !said {
			said = true
			r.log.Warn("kubernetes: the API server does not answer; waiting for it", "server", r.client.Host(), "error", err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Second):
		}
	}
}

// noAnswer tells an API server that is away, or overwhelmed (as with an etcd that is slow), from one that says no.
func noAnswer(err error) bool {
	var dial *net.OpError
	return errors.As(err, &dial) || errors.Is(err, context.DeadlineExceeded) || apierrors.IsTimeout(err) || apierrors.IsServerTimeout(err) ||
		apierrors.IsTooManyRequests(err) || apierrors.IsServiceUnavailable(err) || apierrors.IsInternalError(err)
}

// settings are the mesh-wide settings with the ConfigMap's text.
func (r *replica) settings(text string) (model.Mesh, error) {
	_, rest, err := inject.ParseConfig("", text) // what is injection's is not the control plane's
	if err != nil || rest == "" {
		return r.base, err
	}
	mesh, err := convert.MeshConfig(rest, r.base)
	if err == nil {
		err = checkLogFormat(mesh)
	}
	return mesh, err
}

func (r *replica) sources(mesh model.Mesh) error {
	var selectors []kubelabels.Selector
	for _, text := range mesh.DiscoverySelectors {
		s, err := kubelabels.Parse(text)
		if err != nil {
			return fmt.Errorf("discovery selector %q: %w", text, err)
		}
		selectors = append(selectors, s)
	}
	r.revisions = &kube.Revisions{Client: r.client, Own: r.o.revision, Log: r.log}
	r.source = kubesource.New(kubesource.Settings{Client: r.client, Selectors: selectors, Log: r.log, OnProblems: func() { r.status.Wake() }})
	r.set.Sources = append(r.set.Sources, merge.Named{Name: "kubernetes", Source: r.source})
	r.status = kube.NewStatus(kube.StatusSettings{Client: r.client, Source: r.source, Log: r.log,
		World: func() string { return r.server.World().Version() }, Proxies: func() []admin.ProxyStatus { return r.server.Proxies() }, Wanted: r.wanted, Mine: r.revisions.Mine})
	return nil
}

// wanted are the statuses of the Gateway API's objects and of Ingresses.
func (r *replica) wanted() map[model.Key]kube.Wanted {
	ours := func(c gw.GatewayController) bool { return slices.Contains(r.controllers(), string(c)) }
	out := kube.GatewayStatuses(r.server.GatewayAPI().Statuses, ours)
	maps.Copy(out, kube.IngressStatuses(r.server.Ingresses(), r.addresses.Load()))
	return out
}

// names are what proxies and the API server call this control plane.
func (r *replica) names() []string {
	var out []string
	for _, svc := range []string{r.o.name("weft"), r.o.name("istiod"), "weft", "istiod"} {
		for _, suffix := range []string{"", ".cluster.local"} {
			out = append(out, svc+"."+r.o.namespace+".svc"+suffix)
		}
	}
	return append(out, "istiod.istio-system.svc.cluster.local", "weft.weft-system.svc.cluster.local")
}

// run serves, follows what may change, and writes while it leads.
func (r *replica) run(ctx context.Context) error {
	part, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	elector := &kube.Elector{Client: r.client, Namespace: r.o.namespace, Name: r.o.name("weft-leader"), Identity: r.id, Log: r.log}
	values := r.webhooks.valuesText // as it was read: remesh does not run yet
	wg.Go(func() { r.key.Follow(part, r.signs, r.rekey) })
	wg.Go(func() { r.mesh.Follow(part, r.text, r.remesh) })
	wg.Go(func() { r.webhooks.follow(part, values) })
	wg.Go(func() { elector.Run(part, r.lead) })
	wg.Go(func() {
		<-ctx.Done()
		cancel() // the lease is given up at once, while proxies are still being sent away
	})
	err := r.server.Run(ctx)
	cancel()
	return err
}

func (r *replica) rekey(m ca.Material) error {
	if err := r.ca.Replace(m); err != nil {
		return err
	}
	for _, c := range []chan struct{}{r.roots, r.bundle, r.trust} {
		select {
		case c <- struct{}{}:
		default:
		}
	}
	return nil
}

func (r *replica) remesh(text string) error {
	mesh, err := r.settings(text)
	if err != nil {
		return err
	}
	if err := r.server.SetMesh(mesh); err != nil {
		return err
	}
	if err := r.webhooks.remesh(text); err != nil {
		return err
	}
	r.log.Info("mesh config: changed", "configmap", r.o.namespace+"/"+r.mesh.Name)
	return nil
}

// lead runs the writers until ctx ends.
func (r *replica) lead(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		(&kube.RootCerts{Client: r.client, Roots: r.ca.Roots, Changed: r.roots, Log: r.log}).Run(ctx)
	})
	wg.Go(func() {
		(&kube.CABundles{Client: r.client, Namespace: r.o.namespace, Service: r.o.name("weft"), Roots: r.ca.Roots, Changed: r.bundle, Log: r.log}).Run(ctx)
	})
	wg.Go(func() {
		(&kube.TrustBundle{Client: r.client, Roots: r.ca.Roots, Changed: r.trust, Log: r.log,
			Wanted: func() bool { return r.webhooks.conf.Load().Global.ClusterTrustBundle }}).Run(ctx)
	})
	wg.Go(func() { r.revisions.Run(ctx) })
	if r.o.untaint != "" {
		wg.Go(func() { (&kube.Untaint{Client: r.client, Namespace: r.o.untaint, Log: r.log}).Run(ctx) })
	}
	// What is judged by all that there is waits for all that there is: to a
	// replica that has just begun every gateway looks like one that nobody wants.
	if r.server.Synced(ctx) != nil {
		return
	}
	wg.Go(func() { r.followIngressAddresses(ctx) })
	wg.Go(func() { r.status.Run(ctx) })
	wg.Go(func() { r.deployGateways(ctx) })
}

// podAddress is where a replica in a pod listens: everywhere, so that the pod's
// address works and kubectl's port-forward, which comes from within, as well.
func (a *app) podAddress() string {
	if ip, err := netip.ParseAddr(a.env.Getenv("POD_IP")); err == nil && ip.Is6() {
		return "::"
	}
	return "0.0.0.0"
}
