// Package kiali_test holds Weft against Kiali's own server: what its pages ask, it gets from Weft as from Istio.
package kiali_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"weft.mesh/weft/test/kubernetes/kubetest"
)

// What Kiali shows of a mesh, it shows of Weft as well.
func TestKialiFindsWhatItExpects(t *testing.T) {
	k := start(t)
	stop := k.load(t)
	defer stop()
	for _, page := range []struct {
		name  string
		check func(*kiali, context.Context) error
	}{
		{"every component is healthy", (*kiali).components},
		{"the control plane serves this cluster and the namespace", (*kiali).controlPlane},
		{"every proxy has its configuration", (*kiali).synced},
		{"a gateway is a proxy", (*kiali).gateway},
		{"services come from the registry", (*kiali).services},
		{"objects are valid", (*kiali).validations},
		{"mutual TLS is on", (*kiali).mutualTLS},
		{"the graph has traffic with mutual TLS", (*kiali).graph},
		{"a workload has metrics", (*kiali).metrics},
		{"the control plane has metrics", (*kiali).planeMetrics},
		{"workloads are healthy by their requests", (*kiali).health},
		{"a proxy shows its configuration", (*kiali).configDump},
		{"a proxy shows its log", (*kiali).proxyLog},
	} {
		t.Run(page.name, func(t *testing.T) {
			k.Eventually(t, 2*time.Minute, "Kiali's answer", func(ctx context.Context) error { return page.check(k, ctx) })
		})
	}
	t.Run("the level of a proxy's log is changed", k.logLevel)
	t.Run("after the control plane came anew every proxy is in sync", k.afterRestart)
}

// load asks for Bookinfo's page ten times a second until it is stopped.
func (k *kiali) load(t *testing.T) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				k.Load(ctx, "") // what comes back is other tests' concern
			}
		}
	}()
	return func() {
		cancel()
		<-done
	}
}

func (k *kiali) components(ctx context.Context) error {
	var all []struct {
		Name, Status string
		IsCore       bool `json:"is_core"`
	}
	if err := k.get(ctx, "/api/istio/status", &all); err != nil {
		return err
	}
	var healthy []string
	for _, c := range all {
		switch {
		case c.Status == "Healthy":
			healthy = append(healthy, c.Name)
		case c.IsCore || c.Status != "NotFound":
			return fmt.Errorf("%s is %s", c.Name, c.Status)
		}
	}
	for _, want := range []string{"weft", "istio=ingressgateway"} {
		if !slices.Contains(healthy, want) {
			return fmt.Errorf("%s is not among the healthy components: %+v", want, all)
		}
	}
	return nil
}

// controlPlane looks at the page Mesh: who manages what, its version and its settings.
func (k *kiali) controlPlane(ctx context.Context) error {
	var g struct {
		Elements struct {
			Nodes []struct {
				Data struct {
					InfraType, InfraName, Namespace, Version string
					HealthData                               string
					InfraData                                any
				}
			}
			Edges []any
		}
	}
	if err := k.get(ctx, "/api/mesh/graph?queryTime="+strconv.FormatInt(time.Now().Unix(), 10), &g); err != nil {
		return err
	}
	var plane, data bool
	for _, n := range g.Elements.Nodes {
		d := n.Data
		switch d.InfraType {
		case "istiod":
			if d.InfraName != "weft" || d.Namespace != kubetest.System || d.HealthData != "Healthy" || d.Version == "" || d.Version == "Unknown" {
				return fmt.Errorf("control plane %+v", d)
			}
			config := fmt.Sprint(d.InfraData)
			if !strings.Contains(config, "/dev/stdout") { // accessLogFile of the profile, which is in the mesh's settings
				return fmt.Errorf("settings of the mesh: %s", config)
			}
			plane = true
		case "dataplane":
			data = strings.Contains(fmt.Sprint(d.InfraData), "name:default")
		}
	}
	if !plane || !data {
		return fmt.Errorf("control plane: %t, namespaces that it serves: %t in %+v", plane, data, g.Elements.Nodes)
	}
	return nil
}

// pod is one of Kiali's.
type pod struct {
	Name        string
	Containers  []struct{ IsProxy, IsReady bool }
	ProxyStatus *struct{ CDS, EDS, LDS, RDS string } // of pods with a sidecar only
}

type workload struct {
	Name         string
	IstioSidecar bool
	Pods         []pod
	Health       struct {
		WorkloadStatus struct{ DesiredReplicas, AvailableReplicas, SyncedProxies int }
	}
}

func (k *kiali) workload(ctx context.Context, namespace, name string) (w workload, err error) {
	err = k.get(ctx, "/api/namespaces/"+namespace+"/workloads/"+name+"?validate=true&health=true&rateInterval=60s", &w)
	return w, err
}

// bookinfo are the sample's Deployments with sidecars.
var bookinfo = []string{"details-v1", "productpage-v1", "ratings-v1", "reviews-v1", "reviews-v2", "reviews-v3"}

func (k *kiali) synced(ctx context.Context) error {
	for _, name := range bookinfo {
		w, err := k.workload(ctx, "default", name)
		if err != nil {
			return err
		}
		if !w.IstioSidecar || len(w.Pods) != 1 || w.Health.WorkloadStatus.SyncedProxies != 1 {
			return fmt.Errorf("%s: %+v", name, w)
		}
		if s := w.Pods[0].ProxyStatus; s == nil || *s != (struct{ CDS, EDS, LDS, RDS string }{"Synced", "Synced", "Synced", "Synced"}) {
			return fmt.Errorf("%s: state of its proxy: %+v", name, s)
		}
	}
	return nil
}

func (k *kiali) gateway(ctx context.Context) error {
	w, err := k.workload(ctx, kubetest.System, "istio-ingressgateway")
	if err != nil {
		return err
	}
	if s := w.Health.WorkloadStatus; len(w.Pods) != 1 || len(w.Pods[0].Containers) != 1 || s.AvailableReplicas != 1 {
		return fmt.Errorf("%+v", w)
	}
	if c := w.Pods[0].Containers[0]; !c.IsProxy || !c.IsReady {
		return fmt.Errorf("%+v", c)
	}
	return nil
}

func (k *kiali) services(ctx context.Context) error {
	var s struct {
		Service      struct{ Name, Ip string }
		Endpoints    []struct{ Addresses []any }
		IstioSidecar bool
		Workloads    []struct{ Name string }
	}
	if err := k.get(ctx, "/api/namespaces/default/services/reviews?validate=true&rateInterval=60s", &s); err != nil {
		return err
	}
	if s.Service.Name != "reviews" || s.Service.Ip == "" || !s.IstioSidecar || len(s.Workloads) != 3 || len(s.Endpoints) != 1 || len(s.Endpoints[0].Addresses) != 3 {
		return fmt.Errorf("%+v", s)
	}
	return nil
}

func (k *kiali) validations(ctx context.Context) error {
	var all []struct {
		Namespace                     string
		Errors, Warnings, ObjectCount int
	}
	if err := k.get(ctx, "/api/istio/validations", &all); err != nil {
		return err
	}
	objects := 0
	for _, n := range all {
		if n.Errors != 0 {
			return fmt.Errorf("%s: %+v", n.Namespace, n)
		}
		objects += n.ObjectCount
	}
	if objects < 2 { // Bookinfo's Gateway and VirtualService
		return fmt.Errorf("no objects: %+v", all)
	}
	return nil
}

func (k *kiali) mutualTLS(ctx context.Context) error {
	var s struct {
		Status          string
		AutoMTLSEnabled bool
	}
	if err := k.get(ctx, "/api/mesh/tls", &s); err != nil {
		return err
	}
	if !s.AutoMTLSEnabled {
		return fmt.Errorf("%+v", s)
	}
	return nil
}

func (k *kiali) graph(ctx context.Context) error {
	var g struct {
		Elements struct {
			Nodes []struct {
				Data struct{ ID, Workload, Service, App string }
			}
			Edges []struct {
				Data struct {
					Source, Target, IsMTLS, ResponseTime, DestPrincipal string
					Traffic                                             struct{ Protocol string }
				}
			}
		}
	}
	path := "/api/namespaces/graph?namespaces=default," + kubetest.System + "&duration=60s&graphType=workload&injectServiceNodes=false&appenders=securityPolicy,responseTime,throughput,health,istio,sidecarsCheck"
	if err := k.get(ctx, path, &g); err != nil {
		return err
	}
	names := map[string]string{}
	for _, n := range g.Elements.Nodes {
		names[n.Data.ID] = cmp.Or(n.Data.Workload, n.Data.Service)
	}
	want := map[string]bool{
		"istio-ingressgateway productpage-v1": true, "productpage-v1 details-v1": true, "productpage-v1 reviews-v1": true,
		"productpage-v1 reviews-v2": true, "productpage-v1 reviews-v3": true, "reviews-v2 ratings-v1": true, "reviews-v3 ratings-v1": true,
	}
	for _, e := range g.Elements.Edges {
		d := e.Data
		edge := names[d.Source] + " " + names[d.Target]
		if !want[edge] {
			continue
		}
		delete(want, edge)
		if d.Traffic.Protocol != "http" || d.IsMTLS != "100" || d.ResponseTime == "" || !strings.HasPrefix(d.DestPrincipal, "spiffe://cluster.local/ns/default/sa/bookinfo-") {
			return fmt.Errorf("%s: %+v", edge, d)
		}
	}
	if len(want) > 0 {
		return fmt.Errorf("no traffic from … to …: %v; nodes: %v", slices.Sorted(maps.Keys(want)), names)
	}
	return nil
}

// series is one line of a chart.
type series struct {
	Name       string
	Labels     map[string]string
	Datapoints [][]any
}

// alive tells whether some line of a chart has a value other than zero.
func alive(all []series) bool {
	for _, s := range all {
		for _, p := range s.Datapoints {
			if len(p) == 2 && fmt.Sprint(p[1]) != "0" && fmt.Sprint(p[1]) != "NaN" {
				return true
			}
		}
	}
	return false
}

func (k *kiali) metrics(ctx context.Context) error {
	var m map[string][]series
	path := "/api/namespaces/default/workloads/productpage-v1/metrics?direction=outbound&reporter=source&duration=60&step=15&rateInterval=60s&quantiles[]=0.95&avg=true"
	if err := k.get(ctx, path, &m); err != nil {
		return err
	}
	for _, name := range []string{"request_count", "request_duration_millis", "response_size", "response_throughput"} {
		if !alive(m[name]) {
			return fmt.Errorf("%s: %+v", name, m[name])
		}
	}
	return nil
}

func (k *kiali) planeMetrics(ctx context.Context) error {
	var m map[string][]series
	if err := k.get(ctx, "/api/namespaces/"+kubetest.System+"/metrics?duration=60&step=15&rateInterval=60s", &m); err != nil {
		return err
	}
	for _, name := range []string{"process_cpu_seconds_total", "process_resident_memory_bytes"} {
		if !alive(m[name]) {
			return fmt.Errorf("%s: %+v", name, m[name])
		}
	}
	return nil
}

func (k *kiali) health(ctx context.Context) error {
	var h map[string]map[string]map[string]struct {
		Requests struct {
			Inbound, Outbound map[string]map[string]float64
		}
	}
	if err := k.get(ctx, "/api/clusters/health?namespaces=default&type=app&rateInterval=60s", &h); err != nil {
		return err
	}
	for name, app := range h["namespaceAppHealth"]["default"] {
		if name == "productpage" && app.Requests.Inbound["http"]["200"] > 0 && app.Requests.Outbound["http"]["200"] > 0 {
			return nil
		}
	}
	return fmt.Errorf("%+v", h)
}

func (k *kiali) productpage(ctx context.Context) (string, error) {
	pods, err := k.Pods(ctx, "default", "productpage-v1")
	if err == nil && len(pods) != 1 {
		err = fmt.Errorf("%d pods of productpage-v1", len(pods))
	}
	if err != nil {
		return "", err
	}
	return "/api/namespaces/default/pods/" + pods[0].Name, nil
}

func (k *kiali) configDump(ctx context.Context) error {
	pod, err := k.productpage(ctx)
	if err != nil {
		return err
	}
	var d struct {
		Clusters []struct {
			ServiceFQDN struct{ Service string } `json:"service_fqdn"`
			Port        int
			Direction   string
		}
		Listeners []struct {
			Address, Match, Destination string
			Port                        float64
		}
		Routes []struct {
			Name    string
			Domains struct{ Service string }
		}
		Bootstrap map[string]any
	}
	for _, part := range []string{"clusters", "listeners", "routes", "bootstrap"} {
		if err := k.get(ctx, pod+"/config_dump/"+part, &d); err != nil {
			return err
		}
	}
	var missing []error
	if !slices.ContainsFunc(d.Clusters, func(c struct {
		ServiceFQDN struct{ Service string } `json:"service_fqdn"`
		Port        int
		Direction   string
	}) bool {
		return c.ServiceFQDN.Service == "reviews" && c.Port == 9080 && c.Direction == "outbound"
	}) {
		missing = append(missing, fmt.Errorf("no cluster of reviews: %+v", d.Clusters))
	}
	if len(d.Listeners) < 5 {
		missing = append(missing, fmt.Errorf("listeners %+v", d.Listeners))
	}
	if len(d.Routes) < 5 {
		missing = append(missing, fmt.Errorf("routes %+v", d.Routes))
	}
	if len(d.Bootstrap) == 0 {
		missing = append(missing, errors.New("no bootstrap"))
	}
	return errors.Join(missing...)
}

func (k *kiali) proxyLog(ctx context.Context) error {
	pod, err := k.productpage(ctx)
	if err != nil {
		return err
	}
	var l struct {
		Entries []struct {
			Message   string
			AccessLog *struct {
				StatusCode string `json:"status_code"`
			} `json:"accessLog"`
		}
	}
	if err := k.get(ctx, pod+"/logs?container=istio-proxy&logType=proxy&maxLines=20", &l); err != nil {
		return err
	}
	for _, e := range l.Entries {
		if e.AccessLog != nil && e.AccessLog.StatusCode == "200" { // Kiali could take a line of the access log apart
			return nil
		}
	}
	return fmt.Errorf("no line of the access log among %+v", l.Entries)
}

// logLevel changes what a proxy logs, as the page of its logs offers to.
func (k *kiali) logLevel(t *testing.T) {
	pod, err := k.productpage(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	level := func() string {
		out, err := k.Cluster.Exec(t.Context(), "default", "deployment/productpage-v1", "istio-proxy", "pilot-agent", "request", "POST", "logging")
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	for _, want := range []string{"debug", "info"} {
		if err := k.post(t.Context(), pod+"/logging?level="+want); err != nil {
			t.Fatal(err)
		}
		if got := level(); !strings.Contains(got, want) {
			t.Errorf("level %s, want %s", got, want)
		}
	}
}

// afterRestart restarts the control plane: proxies that connect again with what they have got are in sync for Kiali too. It asks
// every 2 s, so what it says for 10 s is not of before.
func (k *kiali) afterRestart(t *testing.T) {
	k.Kubectl(t, "-n", kubetest.System, "rollout", "restart", "deployment/weft")
	k.Kubectl(t, "-n", kubetest.System, "rollout", "status", "deployment/weft", "--timeout=120s")
	since := time.Now()
	k.Eventually(t, 2*time.Minute, "Kiali's answer", func(ctx context.Context) error {
		if err := errors.Join(k.components(ctx), k.synced(ctx), k.gateway(ctx)); err != nil {
			since = time.Now()
			return err
		}
		if held := time.Since(since); held < 10*time.Second {
			return fmt.Errorf("right for %s only", held.Round(time.Second))
		}
		return nil
	})
}
