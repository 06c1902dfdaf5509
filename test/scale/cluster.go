package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"weft.mesh/weft/control/ca"
	"weft.mesh/weft/test/kubernetes/testbed"
)

// cluster is an API server with a mesh in it.
type cluster struct {
	api  *testbed.APIServer
	size size
	flip []atomic.Bool // endpoint 0 of each service is not ready
	salt int           // of timeouts: another run has used others
}

const (
	rootNamespace = "weft-system"
	writers       = 12 // requests to the API server at once
)

// saved is what another run needs to use a cluster.
type saved struct {
	Size      size
	URL       string
	Key, Cert []byte
}

// save leaves a note in dir, by which a later run finds the cluster.
func (c *cluster) save(dir string, key ca.Material) error {
	b, err := json.Marshal(saved{c.size, c.api.URL, key.Key, key.Cert})
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "mesh.json"), b, 0o600)
}

// openCluster uses the cluster that another process keeps in dir.
func openCluster(dir string) (*cluster, ca.Material, error) {
	var s saved
	b, err := os.ReadFile(filepath.Join(dir, "mesh.json"))
	if err == nil {
		err = json.Unmarshal(b, &s)
	}
	if err != nil {
		return nil, ca.Material{}, err
	}
	pki := filepath.Join(dir, "pki")
	api := &testbed.APIServer{URL: s.URL, Kubeconfig: filepath.Join(pki, "admin.kubeconfig")}
	if api.Client, err = testbed.NewClient(s.URL, pki); err != nil {
		return nil, ca.Material{}, err
	}
	c := &cluster{api: api, size: s.Size, flip: make([]atomic.Bool, s.Size.Services), salt: int(time.Now().Unix() % 1e6)}
	if err := c.readFlips(); err != nil {
		return nil, ca.Material{}, err
	}
	return c, ca.Material{Key: s.Key, Cert: s.Cert}, nil
}

// readFlips finds out which services' first endpoint another run has left out of rotation.
func (c *cluster) readFlips() error {
	var slices struct {
		Items []struct {
			Metadata  struct{ Name string }
			Endpoints []struct{ Conditions struct{ Ready bool } }
		}
	}
	if err := c.api.Client.Do(context.Background(), http.MethodGet, "/apis/discovery.k8s.io/v1/endpointslices", "", nil, &slices); err != nil {
		return err
	}
	for _, s := range slices.Items {
		var service int
		if _, err := fmt.Sscanf(s.Metadata.Name, "svc-%d", &service); err == nil && len(s.Endpoints) > 0 {
			c.flip[service].Store(!s.Endpoints[0].Conditions.Ready)
		}
	}
	return nil
}

// startCluster starts an API server and writes all objects of a mesh into it.
func startCluster(ctx context.Context, dir string, s size, key ca.Material, log io.Writer) (*cluster, error) {
	bed, err := testbed.Find(log)
	if err != nil {
		return nil, err
	}
	if err := bed.Missing(); err != nil {
		return nil, err
	}
	api, err := bed.StartAPIServer(ctx, dir)
	if err != nil {
		return nil, err
	}
	c := &cluster{api: api, size: s, flip: make([]atomic.Bool, s.Services)}
	if err = bed.InstallCRDs(ctx, api.Client); err == nil {
		err = c.fill(ctx, key)
	}
	if err != nil {
		return nil, errors.Join(err, api.Stop())
	}
	return c, nil
}

// write is one request.
type write struct {
	method, path, kind string
	body               any
}

func create(path string, body object) write {
	return write{http.MethodPost, path, "application/json", body}
}

func (c *cluster) do(ctx context.Context, w write) error {
	return c.api.Client.Do(ctx, w.method, w.path, w.kind, w.body, nil)
}

// all does writes, many at once.
func (c *cluster) all(ctx context.Context, n int, each func(int) []write) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var next atomic.Int64
	var wg sync.WaitGroup
	for range writers {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < n && ctx.Err() == nil; i = int(next.Add(1)) - 1 {
				for _, w := range each(i) {
					if err := c.do(ctx, w); err != nil {
						cancel(err)
						return
					}
				}
			}
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}

func (c *cluster) fill(ctx context.Context, key ca.Material) error {
	s := c.size
	namespace := func(name string) write {
		return create("/api/v1/namespaces", object{"apiVersion": "v1", "kind": "Namespace", "metadata": object{"name": name}})
	}
	encode := base64.StdEncoding.EncodeToString
	first := []write{namespace(rootNamespace), create("/api/v1/namespaces/"+rootNamespace+"/secrets", object{"apiVersion": "v1", "kind": "Secret",
		"metadata": object{"name": "cacerts"}, "data": object{"ca-key.pem": encode(key.Key), "ca-cert.pem": encode(key.Cert), "root-cert.pem": encode(key.Cert), "cert-chain.pem": encode(key.Cert)}})}
	for i := range s.Namespaces {
		first = append(first, namespace(s.namespace(i)))
	}
	for i := range nodes {
		first = append(first, create("/api/v1/nodes", nodeObject(i)))
	}
	for _, w := range first {
		if err := c.do(ctx, w); err != nil {
			return err
		}
	}
	err := c.all(ctx, s.Services, func(i int) []write {
		ns := s.namespace(i)
		return []write{create("/api/v1/namespaces/"+ns+"/serviceaccounts", object{"apiVersion": "v1", "kind": "ServiceAccount", "metadata": object{"name": serviceName(i)}})}
	})
	if err != nil {
		return err
	}
	pods := s.pods()
	err = c.all(ctx, len(pods), func(i int) []write {
		in := "/api/v1/namespaces/" + s.namespace(pods[i].service) + "/pods"
		return []write{create(in, s.podObject(pods[i])),
			{http.MethodPatch, in + "/" + pods[i].name() + "/status", "application/strategic-merge-patch+json", podStatus(pods[i])}}
	})
	if err != nil {
		return err
	}
	return c.all(ctx, s.Services, func(i int) []write {
		ns := s.namespace(i)
		out := []write{create("/api/v1/namespaces/"+ns+"/services", s.serviceObject(i)), create("/apis/discovery.k8s.io/v1/namespaces/"+ns+"/endpointslices", s.sliceObject(i))}
		if i < s.Routes {
			out = append(out, create("/apis/networking.istio.io/v1/namespaces/"+ns+"/virtualservices", s.routeObject(i, "10s")))
		}
		return out
	})
}

// changeEndpoint takes the first endpoint of a service out of rotation, or back in.
func (c *cluster) changeEndpoint(ctx context.Context, service int) error {
	ready := c.flip[service].Load()
	c.flip[service].Store(!ready)
	path := "/apis/discovery.k8s.io/v1/namespaces/" + c.size.namespace(service) + "/endpointslices/" + serviceName(service)
	return c.do(ctx, write{http.MethodPatch, path, "application/json-patch+json", []object{{"op": "replace", "path": "/endpoints/0/conditions/ready", "value": ready}}})
}

// changeRoute gives a VirtualService another timeout.
func (c *cluster) changeRoute(ctx context.Context, service, n int) error {
	path := "/apis/networking.istio.io/v1/namespaces/" + c.size.namespace(service) + "/virtualservices/" + serviceName(service)
	spec := c.size.routeObject(service, fmt.Sprintf("%dms", 10_001+c.salt+n))["spec"]
	return c.do(ctx, write{http.MethodPatch, path, "application/merge-patch+json", object{"spec": spec}})
}
