package cli

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/structpb"
	securityapi "istio.io/api/security/v1alpha1"

	"weft.mesh/weft/control/kube/kubetest"
	"weft.mesh/weft/control/server"
	"weft.mesh/weft/model"
	"weft.mesh/weft/xds"
)

type obj = kubetest.Object

// logBuffer is a log that is read while it is written.
type logBuffer struct {
	mu   sync.Mutex
	b    bytes.Buffer
	grew chan struct{}
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.grew != nil {
		close(b.grew)
		b.grew = nil
	}
	return b.b.Write(p)
}

// grown is closed with the next line. Ask for it before looking.
func (b *logBuffer) grown() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.grew == nil {
		b.grew = make(chan struct{})
	}
	return b.grew
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// testCluster is an API server with one workload, and a replica that serves it.
type testCluster struct {
	*kubetest.Server
	t     *testing.T
	log   logBuffer
	mu    sync.Mutex
	ports map[string]net.Listener
	stop  func() error
}

func startCluster(t *testing.T, edits ...func(*testCluster)) *testCluster {
	t.Helper()
	c := &testCluster{Server: kubetest.Start(t), t: t, ports: map[string]net.Listener{}}
	for _, ns := range []string{"shop", "weft-system"} {
		c.Put("v1/namespaces", obj{"apiVersion": "v1", "kind": "Namespace", "metadata": obj{"name": ns}})
	}
	c.Put("v1/services", obj{"apiVersion": "v1", "kind": "Service", "metadata": obj{"namespace": "shop", "name": "web"},
		"spec": obj{"clusterIP": "10.96.0.10", "selector": obj{"app": "web"}, "ports": []any{obj{"name": "http", "port": 80, "targetPort": 8080}}}})
	c.Put("v1/pods", obj{"apiVersion": "v1", "kind": "Pod", "metadata": obj{"namespace": "shop", "name": "web-1", "labels": obj{"app": "web"}},
		"spec":   obj{"serviceAccountName": "web", "containers": []any{obj{"name": "istio-proxy"}, obj{"name": "app"}}},
		"status": obj{"phase": "Running", "podIP": "10.0.0.1"}})
	c.endpoints(true)
	c.Install("networking.istio.io/v1", "virtualservices", "VirtualService", true)
	c.Put("v1/configmaps", obj{"apiVersion": "v1", "kind": "ConfigMap", "metadata": obj{"namespace": "weft-system", "name": "istio"}, "data": obj{"mesh": "accessLogFile: /dev/stdout\n"}})
	c.Reviews(func(token string, _ []string) obj {
		if token != "a.good.token" {
			return obj{"authenticated": false, "error": "expired"}
		}
		return obj{"authenticated": true, "audiences": []string{"istio-ca"}, "user": obj{"username": "system:serviceaccount:shop:web",
			"extra": obj{"authentication.kubernetes.io/pod-name": []string{"web-1"}}}}
	})
	for _, e := range edits {
		e(c)
	}
	c.run()
	return c
}

func (c *testCluster) endpoints(ready bool) {
	c.Put("discovery.k8s.io/v1/endpointslices", obj{"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
		"metadata":  obj{"namespace": "shop", "name": "web-x", "labels": obj{"kubernetes.io/service-name": "web"}},
		"ports":     []any{obj{"name": "http", "port": 8080, "protocol": "TCP"}},
		"endpoints": []any{obj{"addresses": []any{"10.0.0.1"}, "conditions": obj{"ready": ready}, "targetRef": obj{"kind": "Pod", "name": "web-1"}}}})
}

func (c *testCluster) run() {
	dir := c.t.TempDir()
	file := filepath.Join(dir, "kubeconfig")
	text := fmt.Sprintf("apiVersion: v1\nkind: Config\ncurrent-context: x\ncontexts: [{name: x, context: {cluster: x, user: x}}]\nusers: [{name: x, user: {}}]\nclusters: [{name: x, cluster: {server: %q}}]\n", c.Config().Host)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		c.t.Fatal(err)
	}
	a := &app{env: Environ{Getenv: func(string) string { return "" }}}
	set := server.Settings{StateDir: filepath.Join(dir, "state"), Address: "127.0.0.1", Log: slog.New(slog.NewTextHandler(&c.log, nil)), Quiet: time.Millisecond, Max: 10 * time.Millisecond}
	set.Listen = func(network, address string) (net.Listener, error) {
		_, port, _ := net.SplitHostPort(address)
		l, err := net.Listen(network, "127.0.0.1:0")
		c.mu.Lock()
		defer c.mu.Unlock()
		c.ports[port] = l
		return l, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- a.runKubernetes(ctx, &kubernetesOptions{on: true, kubeconfig: file, drain: 50 * time.Millisecond}, model.Mesh{}, set)
	}()
	c.stop = sync.OnceValue(func() error {
		cancel()
		return <-done
	})
	c.t.Cleanup(func() {
		if err := c.stop(); err != nil {
			c.t.Errorf("the replica ended with %v", err)
		}
		if c.t.Failed() {
			c.t.Log(c.log.String())
		}
	})
}

// eventually looks again whenever an object has changed or a line was logged, for a minute.
func (c *testCluster) eventually(what string, ok func() bool) {
	c.t.Helper()
	deadline := time.NewTimer(time.Minute)
	defer deadline.Stop()
	for {
		changed, logged := c.Changed(), c.log.grown()
		if ok() {
			return
		}
		select {
		case <-changed:
		case <-logged:
		case <-deadline.C:
			c.t.Fatalf("%s\n%s", what, c.log.String())
		}
	}
}

// dial connects to 15012 as a pod does: with the root from its namespace's ConfigMap.
func (c *testCluster) dial(cert *tls.Certificate) *grpc.ClientConn {
	c.t.Helper()
	var root string
	c.eventually("the namespace has no root certificate", func() bool {
		if u := c.Get("v1/configmaps", "shop", "istio-ca-root-cert"); u != nil {
			root, _ = u["data"].(obj)["root-cert.pem"].(string)
		}
		return root != ""
	})
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM([]byte(root)) {
		c.t.Fatal("no certificate in the ConfigMap")
	}
	conf := &tls.Config{RootCAs: pool, ServerName: "weft.weft-system.svc"}
	if cert != nil {
		conf.Certificates = []tls.Certificate{*cert}
	}
	c.mu.Lock()
	l := c.ports["15012"]
	c.mu.Unlock()
	conn, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(credentials.NewTLS(conf)))
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func (c *testCluster) certificate(token string) (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		c.t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		c.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(metadata.AppendToOutgoingContext(context.Background(), "authorization", "Bearer "+token), time.Minute)
	defer cancel()
	resp, err := securityapi.NewIstioCertificateServiceClient(c.dial(nil)).CreateCertificate(ctx, &securityapi.IstioCertificateRequest{
		Csr: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}))})
	if err != nil {
		return nil, err
	}
	out := &tls.Certificate{PrivateKey: key}
	for _, p := range resp.CertChain {
		b, _ := pem.Decode([]byte(p))
		out.Certificate = append(out.Certificate, b.Bytes)
	}
	return out, nil
}

// ads opens a stream for a node and asks for a type.
func (c *testCluster) ads(conn *grpc.ClientConn, ns, sa string, types ...string) discovery.AggregatedDiscoveryService_DeltaAggregatedResourcesClient {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	c.t.Cleanup(cancel)
	st, err := discovery.NewAggregatedDiscoveryServiceClient(conn).DeltaAggregatedResources(ctx)
	if err != nil {
		c.t.Fatal(err)
	}
	md, err := structpb.NewStruct(map[string]any{"NAMESPACE": ns, "SERVICE_ACCOUNT": sa})
	if err != nil {
		c.t.Fatal(err)
	}
	node := &core.Node{Id: "sidecar~10.0.0.1~web-1." + ns + "~" + ns + ".svc.cluster.local", Metadata: md}
	for _, t := range types {
		req := &discovery.DeltaDiscoveryRequest{TypeUrl: t, Node: node}
		if t == xds.EndpointType {
			req.ResourceNamesSubscribe = []string{"outbound|80||web.shop.svc.cluster.local"}
		}
		if err := st.Send(req); err != nil {
			c.t.Fatal(err)
		}
	}
	return st
}

func resourceNames(r *discovery.DeltaDiscoveryResponse) []string {
	var out []string
	for _, x := range r.GetResources() {
		out = append(out, x.Name)
	}
	return out
}

func TestAReplicaServesACluster(t *testing.T) {
	c := startCluster(t)
	if _, err := c.certificate("a.bad.token"); status.Code(err) != codes.Unauthenticated || !strings.Contains(err.Error(), "expired") {
		t.Errorf("a bad token: %v", err)
	}
	cert, err := c.certificate("a.good.token")
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(cert.Certificate[0])
	if err != nil || len(leaf.URIs) != 1 || leaf.URIs[0].String() != "spiffe://cluster.local/ns/shop/sa/web" {
		t.Fatalf("%v, %v", leaf.URIs, err)
	}
	conn := c.dial(cert)
	for ns, sa := range map[string]string{"shop": "other", "bank": "web"} {
		if _, err := c.ads(conn, ns, sa, xds.ClusterType).Recv(); status.Code(err) != codes.PermissionDenied {
			t.Errorf("a node of %s/%s with the certificate of shop/web: %v", ns, sa, err)
		}
	}
	st := c.ads(conn, "shop", "web", xds.ClusterType)
	r, err := st.Recv()
	if err != nil || !slices.Contains(resourceNames(r), "outbound|80||web.shop.svc.cluster.local") || !slices.Contains(resourceNames(r), "inbound|8080||") {
		t.Fatalf("%v, %v", resourceNames(r), err)
	}
	for name, want := range map[string]bool{"15012": true, "15014": true, "15010": false} {
		c.mu.Lock()
		if (c.ports[name] != nil) != want {
			t.Errorf("port %s open: %v", name, !want)
		}
		c.mu.Unlock()
	}
	if c.Get("v1/secrets", "weft-system", "weft-ca-secret") == nil || c.Get("coordination.k8s.io/v1/leases", "weft-system", "weft-leader") == nil {
		t.Error("no CA secret, or no lease")
	}
	c.Put("networking.istio.io/v1/virtualservices", obj{"apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": obj{"namespace": "shop", "name": "bad"}, "spec": obj{"hosts": []any{"web"}, "httpp": []any{}}})
	c.Install("gateway.networking.k8s.io/v1", "gatewayclasses", "GatewayClass", false)
	c.Put("gateway.networking.k8s.io/v1/gatewayclasses", obj{"apiVersion": "gateway.networking.k8s.io/v1", "kind": "GatewayClass", "metadata": obj{"name": "weft"}, "spec": obj{"controllerName": "weft.mesh/gateway-controller"}})
	c.eventually("the GatewayClass is not accepted", func() bool {
		st := fmt.Sprint(c.Get("gateway.networking.k8s.io/v1/gatewayclasses", "", "weft")["status"])
		return strings.Contains(st, "type:Accepted") && strings.Contains(st, "status:True") && strings.Contains(st, "observedGeneration:1")
	})
	c.eventually("a bad object has no status", func() bool {
		st, _ := c.Get("networking.istio.io/v1/virtualservices", "shop", "bad")["status"].(obj)
		return st != nil && strings.Contains(fmt.Sprint(st), "spec.httpp")
	})
	began := time.Now()
	if err := c.stop(); err != nil || time.Since(began) > 10*time.Second {
		t.Errorf("it ended with %v after %s", err, time.Since(began))
	}
	for err = nil; err == nil; {
		_, err = st.Recv()
	}
	if status.Code(err) != codes.Unavailable {
		t.Errorf("the stream ended with %v", err)
	}
	if l := c.Get("coordination.k8s.io/v1/leases", "weft-system", "weft-leader"); l["spec"].(obj)["holderIdentity"] != "" {
		t.Error("the lease was not given up")
	}
}

// TestAReplicaThatDoesNotKnowEverythingRemovesNothing: to one that has not read
// the Gateways yet, what serves them looks like leftovers.
func TestAReplicaThatDoesNotKnowEverythingRemovesNothing(t *testing.T) {
	c := startCluster(t, func(c *testCluster) {
		c.Forbid("v1/nodes", true)
		c.Put("apps/v1/deployments", obj{"apiVersion": "apps/v1", "kind": "Deployment",
			"metadata": obj{"namespace": "shop", "name": "gw-weft", "labels": obj{"gateway.istio.io/managed": "weft.mesh-gateway-controller"}}})
	})
	c.eventually("it does not lead", func() bool { return strings.Contains(c.log.String(), "this replica writes") })
	c.eventually("no root certificates: they depend on nothing else", func() bool { return c.Get("v1/configmaps", "shop", "istio-ca-root-cert") != nil })
	// What this leader does write follows three more changes: as often it could have come to the gateways.
	for _, ns := range []string{"one", "two", "three"} {
		c.Put("v1/namespaces", obj{"apiVersion": "v1", "kind": "Namespace", "metadata": obj{"name": ns}})
		c.eventually("no root certificate in a new namespace", func() bool { return c.Get("v1/configmaps", ns, "istio-ca-root-cert") != nil })
		if c.Get("apps/v1/deployments", "shop", "gw-weft") == nil {
			t.Fatal("a gateway's Deployment was removed before the Gateways were read")
		}
	}
	c.Forbid("v1/nodes", false)
	c.eventually("a Deployment that no Gateway wants stays", func() bool { return c.Get("apps/v1/deployments", "shop", "gw-weft") == nil })
}

func TestEndpointsFollowTheirSlices(t *testing.T) {
	c := startCluster(t)
	cert, err := c.certificate("a.good.token")
	if err != nil {
		t.Fatal(err)
	}
	st := c.ads(c.dial(cert), "shop", "web", xds.EndpointType)
	next := func() (text string) {
		r, err := st.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if err := st.Send(&discovery.DeltaDiscoveryRequest{TypeUrl: xds.EndpointType, ResponseNonce: r.Nonce}); err != nil {
			t.Fatal(err)
		}
		for _, x := range r.Resources {
			text += string(x.Resource.Value)
		}
		return text
	}
	if text := next(); !strings.Contains(text, "10.0.0.1") {
		t.Fatalf("no endpoint: %q", text)
	}
	c.Down()
	c.endpoints(false)
	c.Up(t)
	if text := next(); strings.Contains(text, "10.0.0.1") {
		t.Errorf("an endpoint that is not ready is still there: %q", text)
	}
}

func TestMeshSettingsComeFromTheConfigMap(t *testing.T) {
	c := startCluster(t)
	cert, err := c.certificate("a.good.token")
	if err != nil {
		t.Fatal(err)
	}
	st := c.ads(c.dial(cert), "shop", "web", xds.ListenerType)
	if r, err := st.Recv(); err != nil || !strings.Contains(r.String(), "/dev/stdout") {
		t.Fatalf("the ConfigMap's access log is not there: %v", err)
	} else if err := st.Send(&discovery.DeltaDiscoveryRequest{TypeUrl: xds.ListenerType, ResponseNonce: r.Nonce}); err != nil {
		t.Fatal(err)
	}
	put := func(text string) {
		c.Put("v1/configmaps", obj{"apiVersion": "v1", "kind": "ConfigMap", "metadata": obj{"namespace": "weft-system", "name": "istio"}, "data": obj{"mesh": text}})
	}
	put("trustDomain: other\n")
	c.eventually("another trust domain is taken", func() bool { return strings.Contains(c.log.String(), "restart it") })
	put("accessLogFile: /dev/stderr\n")
	if r, err := st.Recv(); err != nil || !strings.Contains(r.String(), "/dev/stderr") {
		t.Errorf("a changed ConfigMap has no effect: %v", err)
	}
}
