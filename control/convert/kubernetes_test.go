package convert

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"weft.mesh/weft/model"
)

func to[T any](v T) *T { return &v }

func TestAPodOfAClusterIsAWorkload(t *testing.T) {
	base := func(edit func(*corev1.Pod)) *corev1.Pod {
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web-1", Labels: map[string]string{"app": "web"}},
			Spec:   corev1.PodSpec{NodeName: "n1", ServiceAccountName: "web", Containers: []corev1.Container{{Name: "app"}}},
			Status: corev1.PodStatus{PodIP: "10.0.0.1", PodIPs: []corev1.PodIP{{IP: "10.0.0.1"}, {IP: "fd00::1"}}, Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}}}
		edit(p)
		return p
	}
	sidecar := corev1.Container{Name: "istio-proxy"}
	tests := []struct {
		name          string
		edit          func(*corev1.Pod)
		mtls, gateway bool
	}{
		{"without a sidecar", func(*corev1.Pod) {}, false, false},
		{"with a container istio-proxy", func(p *corev1.Pod) { p.Spec.Containers = append(p.Spec.Containers, sidecar) }, true, false},
		{"with a native sidecar", func(p *corev1.Pod) { p.Spec.InitContainers = append(p.Spec.InitContainers, sidecar) }, true, false},
		{"that the webhook has marked", func(p *corev1.Pod) { p.Annotations = map[string]string{"sidecar.istio.io/status": "{}"} }, true, false},
		{"whose label says that it takes none", func(p *corev1.Pod) {
			p.Spec.Containers = append(p.Spec.Containers, sidecar)
			p.Labels["security.istio.io/tlsMode"] = "disabled"
		}, false, false},
		{"of a gateway", func(p *corev1.Pod) { p.Spec.Containers = []corev1.Container{sidecar} }, false, true},
		{"in its node's network", func(p *corev1.Pod) {
			p.Spec.Containers, p.Spec.HostNetwork = append(p.Spec.Containers, sidecar), true
		}, false, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			o := FromPod(base(tt.edit))
			values, ds := ToModel(&o, model.Mesh{EndpointSlices: true})
			if len(values) != 1 || len(ds) != 0 {
				t.Fatalf("%v, %v", values, ds)
			}
			w := values[0].(*model.Workload)
			if w.HasSidecar != tt.mtls || w.Gateway != tt.gateway {
				t.Errorf("sidecar %v, gateway %v", w.HasSidecar, w.Gateway)
			}
			if !w.Ready || len(w.Addresses) != 2 || w.ServiceAccount != "web" || w.Node != "n1" || w.Key != o.Key || o.Raw != nil {
				t.Errorf("%+v", w)
			}
		})
	}
}

// A pod that is not ready says whether it was its programs, or its node's silence.
func TestAPodOfALostNode(t *testing.T) {
	conditions := func(ready, containers corev1.ConditionStatus) []corev1.PodCondition {
		return []corev1.PodCondition{{Type: corev1.ContainersReady, Status: containers}, {Type: corev1.PodReady, Status: ready}}
	}
	now := metav1.Now()
	for name, c := range map[string]struct {
		pod         corev1.Pod
		ready, lost bool
	}{
		"ready":                         {corev1.Pod{Status: corev1.PodStatus{Conditions: conditions("True", "True")}}, true, false},
		"its node is silent":            {corev1.Pod{Status: corev1.PodStatus{Conditions: conditions("False", "True")}}, false, true},
		"a program is not ready":        {corev1.Pod{Status: corev1.PodStatus{Conditions: conditions("False", "False")}}, false, false},
		"a readiness gate may say no":   {corev1.Pod{Spec: corev1.PodSpec{ReadinessGates: []corev1.PodReadinessGate{{ConditionType: "x"}}}, Status: corev1.PodStatus{Conditions: conditions("False", "True")}}, false, false},
		"it ends":                       {corev1.Pod{ObjectMeta: metav1.ObjectMeta{DeletionTimestamp: &now}, Status: corev1.PodStatus{Conditions: conditions("False", "True")}}, false, false},
		"nothing is known of it so far": {corev1.Pod{}, false, false},
	} {
		c.pod.Namespace, c.pod.Name = "shop", "web-1"
		o := FromPod(&c.pod)
		values, _ := ToModel(&o, model.Mesh{EndpointSlices: true})
		if w := values[0].(*model.Workload); w.Ready != c.ready || w.NodeLost != c.lost {
			t.Errorf("%s: ready %v, lost %v", name, w.Ready, w.NodeLost)
		}
	}
}

// Nothing that the source of a cluster reads may be refused for its kind.
func TestWorkloadsOfAClusterHaveAModel(t *testing.T) {
	meta := metav1.ObjectMeta{Namespace: "shop", Name: "web"}
	pods := corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": "web"}}, Spec: corev1.PodSpec{ServiceAccountName: "web"}}
	for kind, o := range map[model.Kind]Object{
		model.KindDeployment:    FromDeployment(&appsv1.Deployment{ObjectMeta: meta, Spec: appsv1.DeploymentSpec{Template: pods}}),
		model.KindStatefulSet:   FromStatefulSet(&appsv1.StatefulSet{ObjectMeta: meta, Spec: appsv1.StatefulSetSpec{Template: pods}}),
		model.KindPod:           FromPod(&corev1.Pod{ObjectMeta: meta}),
		model.KindEndpointSlice: FromEndpointSlice(&discoveryv1.EndpointSlice{ObjectMeta: meta}),
	} {
		out, diags := ToModel(&o, model.Mesh{})
		if len(out) != 1 || len(diags) != 0 {
			t.Errorf("%s: %d values, %v", kind, len(out), diags)
			continue
		}
		if d, ok := out[0].(*model.Deployment); ok && (d.Key != model.Key{Kind: kind, Namespace: "shop", Name: "web"} || d.ServiceAccount != "web") {
			t.Errorf("%s: %+v", kind, d)
		}
	}
}

func TestASliceOfACluster(t *testing.T) {
	o := FromEndpointSlice(&discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web-x", Labels: map[string]string{"kubernetes.io/service-name": "web"}},
		Ports: []discoveryv1.EndpointPort{{Name: to("http"), Port: to(int32(8080))}, {Name: to("dns"), Port: to(int32(53)), Protocol: to(corev1.ProtocolUDP)},
			{Name: to("any")}, {Name: to("sctp"), Port: to(int32(9)), Protocol: to(corev1.ProtocolSCTP)}},
		Endpoints: []discoveryv1.Endpoint{
			{Addresses: []string{"10.0.0.1"}, NodeName: to("n1"), Zone: to("z1"), TargetRef: &corev1.ObjectReference{Kind: "Pod", Name: "web-1"}},
			{Addresses: []string{"10.0.0.2"}, Conditions: discoveryv1.EndpointConditions{Ready: to(false), Serving: to(true), Terminating: to(true)}},
			{Addresses: []string{"example.com"}},
		},
	})
	want := &model.EndpointSlice{Meta: o.Meta, Service: "web", Ports: []model.SlicePort{{Name: "http", Number: 8080}, {Name: "dns", Number: 53, UDP: true}, {Name: "any"}},
		Endpoints: []model.SliceEndpoint{
			{Addresses: []netip.Addr{netip.MustParseAddr("10.0.0.1")}, Ready: true, Serving: true, Node: "n1", Zone: "z1", Pod: "web-1"},
			{Addresses: []netip.Addr{netip.MustParseAddr("10.0.0.2")}, Serving: true, Terminating: true},
		}}
	if d := cmp.Diff(want, o.Value, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); d != "" {
		t.Error(d)
	}
}

func TestAServiceOfAClusterIsNeverRefused(t *testing.T) {
	spec := func(edit func(*corev1.ServiceSpec)) *corev1.Service {
		s := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web", Annotations: map[string]string{lastApplied: "{}"}},
			Spec: corev1.ServiceSpec{Selector: map[string]string{"app": "web"}, ClusterIP: "10.96.0.7", ClusterIPs: []string{"10.96.0.7"},
				Ports: []corev1.ServicePort{{Name: "http", Port: 80, TargetPort: intstr.FromString("web"), NodePort: 30080}}}}
		edit(&s.Spec)
		return s
	}
	model1 := func(edit func(*corev1.ServiceSpec)) *model.Service {
		o := FromService(spec(edit))
		values, ds := ToModel(&o, model.Mesh{EndpointSlices: true})
		if len(values) != 1 || len(ds) != 0 {
			t.Fatalf("%v, %v", values, ds)
		}
		if len(o.Meta.Annotations) != 0 {
			t.Errorf("annotations %v", o.Meta.Annotations)
		}
		return values[0].(*model.Service)
	}
	s := model1(func(s *corev1.ServiceSpec) {
		s.Type, s.SessionAffinity, s.ClusterIPs = corev1.ServiceTypeLoadBalancer, corev1.ServiceAffinityClientIP, []string{"10.96.0.7", "fd00::7"}
		s.IPFamilyPolicy, s.InternalTrafficPolicy = to(corev1.IPFamilyPolicyRequireDualStack), to(corev1.ServiceInternalTrafficPolicyLocal)
		s.Ports = append(s.Ports, corev1.ServicePort{Name: "sctp", Port: 9, Protocol: corev1.ProtocolSCTP})
	})
	if s.Host != "web.shop.svc.cluster.local" || len(s.Addresses) != 2 || len(s.Ports) != 1 || s.Ports[0].Protocol != model.ProtocolHTTP || s.Ports[0].TargetName != "web" {
		t.Errorf("%+v", s)
	}
	if s := model1(func(s *corev1.ServiceSpec) { s.ClusterIP, s.ClusterIPs = "None", []string{"None"} }); !s.Headless || len(s.Addresses) != 0 {
		t.Errorf("headless: %+v", s)
	}
	s = model1(func(s *corev1.ServiceSpec) {
		s.Type, s.ExternalName, s.ClusterIP, s.ClusterIPs = corev1.ServiceTypeExternalName, "db.example.com", "", nil
	})
	if s.Resolution != model.ResolveDNS || len(s.Endpoints) != 1 || s.Endpoints[0].Address != "db.example.com" || s.Selector != nil {
		t.Errorf("external name: %+v", s)
	}
}

func TestDiscoverySelectorsAreLabelSelectors(t *testing.T) {
	m, err := MeshConfig("discoverySelectors:\n- matchLabels: {mesh: 'yes'}\n- matchExpressions: [{key: env, operator: In, values: [a, b]}]\n", model.Mesh{})
	if d := cmp.Diff([]string{"mesh=yes", "env in (a,b)"}, m.DiscoverySelectors); err != nil || d != "" {
		t.Errorf("%v\n%s", err, d)
	}
	if _, err := MeshConfig("discoverySelectors:\n- matchExpressions: [{key: env, operator: Near}]\n", model.Mesh{}); err == nil {
		t.Error("an operator that does not exist is taken")
	}
}
