package gatewayapi

import (
	gw "sigs.k8s.io/gateway-api/apis/v1"

	"weft.mesh/weft/model"
)

// Controllers of GatewayClasses.
const (
	Controller      = "weft.mesh/gateway-controller" // ours
	IstioController = "istio.io/gateway-controller"  // Istio's, served beside ours if asked
	ClassWeft       = "weft"
	ClassIstio      = "istio"
)

// Settings are what does not come from objects.
type Settings struct {
	Domain string // DNS domain of Services, default cluster.local
	// Controllers are those whose GatewayClasses are served; the first is
	// named in status. None: Controller.
	Controllers []string
	// Classes are served without a GatewayClass object (local mode).
	Classes []string
	// Selector, if set, is of the workloads that serve every Gateway, in
	// whatever namespace they are (local mode's ingress gateway). No
	// deployment is wanted then, and a Gateway is programmed at once, at Addresses.
	Selector  map[string]string
	Addresses []string
}

// Input is everything that the computation looks at. Objects are not changed
// and must not be changed afterwards. Those of the Gateway API are identified by
// namespace and name; metadata.generation goes into conditions.
type Input struct {
	Settings     Settings
	Classes      []*gw.GatewayClass
	Gateways     []*gw.Gateway
	ListenerSets []*gw.ListenerSet
	HTTPRoutes   []*gw.HTTPRoute
	GRPCRoutes   []*gw.GRPCRoute
	TLSRoutes    []*gw.TLSRoute
	TCPRoutes    []*gw.TCPRoute
	Grants       []*gw.ReferenceGrant
	Policies     []*gw.BackendTLSPolicy

	Services   []*model.Service             // Kubernetes Services and hosts of ServiceEntries
	Namespaces map[string]map[string]string // labels by name; a namespace without an object has none
	Secrets    []*model.Secret
	ConfigMaps []*model.ConfigMap
	// Infrastructure is what was deployed for a Gateway, by its key.
	Infrastructure map[model.Key]Infrastructure
}

// Infrastructure is the state of what serves a Gateway on Kubernetes.
type Infrastructure struct {
	Addresses []string // of its Service: IP addresses and host names
	Ready     bool     // a pod of it is ready
	Problem   string   // why it cannot be deployed
	// InvalidParameters says what is wrong with infrastructure.parametersRef; "" nothing.
	InvalidParameters string
}

// Output is what the input means.
type Output struct {
	// Objects are the values for the World, by the key that it knows them by.
	Objects map[model.Key][]model.Object
	// Statuses are what objects should have as status: those of our classes,
	// and routes and policies that concern them.
	Statuses map[model.Key]*Status
	// Deployments are wanted, sorted by namespace and name.
	Deployments []Deployment
}

// Status is an object's status; exactly one field is set, by its kind.
// Conditions have ObservedGeneration and no LastTransitionTime, which whoever
// writes them sets, see [MergeConditions]. Lists are sorted.
type Status struct {
	Class       *gw.GatewayClassStatus
	Gateway     *gw.GatewayStatus
	ListenerSet *gw.ListenerSetStatus
	Route       *gw.RouteStatus  // of ours only: entries of other controllers stay as they are, see [MergeParents]
	Policy      *gw.PolicyStatus // of ours only
}

// Value is the status as it stands in the object.
func (s *Status) Value() any {
	switch {
	case s.Class != nil:
		return s.Class
	case s.Gateway != nil:
		return s.Gateway
	case s.ListenerSet != nil:
		return s.ListenerSet
	case s.Route != nil:
		return s.Route
	}
	return s.Policy
}

// Deployment is a gateway that should run: Deployment, Service and
// ServiceAccount of the name, with Labels, Annotations and the label
// gateway.networking.k8s.io/gateway-name on all of them and on the pods.
type Deployment struct {
	Gateway     model.Key
	Namespace   string
	Name        string // <gateway>-<class>, shortened to 63 with a hash
	Class       string
	Controller  string
	Hold        bool             // the Gateway is not accepted: leave what there is, make nothing
	Ports       []DeploymentPort // of listeners that are accepted, sorted
	Labels      map[string]string
	Annotations map[string]string
	Addresses   []string // that the Service should have; "" is one that anybody assigns
	Parameters  string   // name of a ConfigMap in the namespace; "" none
}

// DeploymentPort is a port of a gateway's Service.
type DeploymentPort struct {
	Name string
	Port uint16
}
