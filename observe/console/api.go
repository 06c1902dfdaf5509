package console

import (
	"encoding/json"
	"math"
	"time"

	"weft.mesh/weft/api/admin"
)

// Number is a number that may be unknown: null in JSON where it is NaN.
type Number float64

// MarshalJSON implements json.Marshaler. Four digits after the point are enough for a screen.
func (n Number) MarshalJSON() ([]byte, error) {
	f := float64(n)
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return []byte("null"), nil
	}
	return json.Marshal(math.Round(f*1e4) / 1e4)
}

// Traffic is what happened in the window, as the callers saw it.
type Traffic struct {
	Rate    Number `json:"rate"`    // requests per second
	Success Number `json:"success"` // share that did not fail; null without requests
	Refused Number `json:"refused"` // share answered with 4xx
	P50     Number `json:"p50"`     // milliseconds
	P99     Number `json:"p99"`
	MTLS    Number `json:"mtls"`          // share over mTLS; null where no proxy on the called side tells
	TCP     *TCP   `json:"tcp,omitempty"` // of TCP streams, if there are any
}

// TCP is the traffic of streams that are no HTTP.
type TCP struct {
	Open     Number `json:"open"`     // connections open now
	Opened   Number `json:"opened"`   // connections per second
	Sent     Number `json:"sent"`     // bytes per second to the caller
	Received Number `json:"received"` // bytes per second from the caller
}

// Ready counts pods or proxies.
type Ready struct {
	Total int `json:"total"`
	Ready int `json:"ready"`
}

// Overview answers /api/v1/overview.
type Overview struct {
	At        time.Time `json:"at"`
	Window    float64   `json:"window"`  // seconds asked for
	Covered   Number    `json:"covered"` // seconds of it that were looked at
	Control   Control   `json:"control"`
	Pods      Ready     `json:"pods"`
	Proxies   Ready     `json:"proxies"` // connected, in sync
	Refused   int       `json:"refused"` // proxies that refused a configuration
	Problems  int       `json:"problems"`
	Traffic   Traffic   `json:"traffic"`
	History   History   `json:"history"`
	Services  []Service `json:"services"`
	Truncated bool      `json:"truncated,omitempty"`
	Error     string    `json:"error,omitempty"` // of the local runtime
}

// Control is what is known of the control plane.
type Control struct {
	Error    string    `json:"error,omitempty"` // it could not be asked; the rest is what it said last
	Version  string    `json:"version,omitempty"`
	Started  time.Time `json:"started,omitzero"`
	World    string    `json:"world,omitempty"`
	Objects  int       `json:"objects"`
	Services int       `json:"services"`
}

// History has one number for each step of the last five minutes, oldest first;
// null where nobody looked.
type History struct {
	Step   float64  `json:"step"` // seconds
	Rate   []Number `json:"rate"`
	Failed []Number `json:"failed"`
}

// Service is one row of the overview.
type Service struct {
	Namespace string    `json:"namespace"`
	Name      string    `json:"name"`
	Known     bool      `json:"known"` // a Service or ServiceEntry of the mesh
	Pods      Ready     `json:"pods"`
	Traffic   Traffic   `json:"traffic"`
	Versions  []Version `json:"versions"`
	History   *History  `json:"history,omitempty"`
}

// Version is what of a service's traffic one version got.
type Version struct {
	Version string `json:"version"`
	Share   Number `json:"share"`
	Success Number `json:"success"`
}

// Graph answers /api/v1/graph.
type Graph struct {
	At        time.Time   `json:"at"`
	Window    float64     `json:"window"`
	Covered   Number      `json:"covered"`
	Nodes     []Node      `json:"nodes"`
	Edges     []GraphEdge `json:"edges"`
	Truncated bool        `json:"truncated,omitempty"`
}

// Kinds of nodes.
const (
	NodeWorkload = "workload"
	NodeGateway  = "gateway"
	NodeService  = "service"  // calls that no workload answered
	NodeOutside  = "outside"  // callers without a proxy
	NodeExternal = "external" // hosts that the mesh does not know
)

// Node is a workload, or what stands for one.
type Node struct {
	ID        string  `json:"id"`
	Kind      string  `json:"kind"`
	Namespace string  `json:"namespace,omitempty"`
	Name      string  `json:"name"`
	App       string  `json:"app,omitempty"`
	Version   string  `json:"version,omitempty"`
	Pods      Ready   `json:"pods"`
	Traffic   Traffic `json:"traffic"` // that comes in
}

// GraphEdge is calls from one node to another.
type GraphEdge struct {
	ID       string  `json:"id"`
	Source   string  `json:"source"`
	Target   string  `json:"target"`
	Service  string  `json:"service"` // namespace/name that was called
	Protocol string  `json:"protocol"`
	Traffic  Traffic `json:"traffic"`
}

// PodList answers /api/v1/pods.
type PodList struct {
	Items        []admin.Pod       `json:"items"`
	ScrapeErrors map[string]string `json:"scrapeErrors,omitempty"` // namespace/name of pods whose metrics could not be read
	Error        string            `json:"error,omitempty"`
}

// ProxyList answers /api/v1/proxies.
type ProxyList struct {
	World string              `json:"world,omitempty"`
	Items []admin.ProxyStatus `json:"items"`
	Error string              `json:"error,omitempty"`
}

// ObjectList answers /api/v1/objects.
type ObjectList struct {
	Items    []ObjectHead       `json:"items"`
	Problems []admin.Diagnostic `json:"problems"`
	Error    string             `json:"error,omitempty"`
}

// ObjectHead names an object and where it came from.
type ObjectHead struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Namespace  string `json:"namespace,omitempty"`
	Name       string `json:"name"`
	Source     string `json:"source"`
	Revision   uint64 `json:"revision"`
}

// Object answers /api/v1/object?kind=&namespace=&name=.
type Object struct {
	ObjectHead
	YAML string `json:"yaml"` // with secret values hidden
}

// Revisions go up when the answer of an endpoint changes.
type Revisions struct {
	Pods    uint64 `json:"pods"`
	Proxies uint64 `json:"proxies"`
	Objects uint64 `json:"objects"`
}

// Event is the data of one event of /api/v1/events.
type Event struct {
	Overview  *Overview `json:"overview"`
	Graph     *Graph    `json:"graph"`
	Revisions Revisions `json:"revisions"`
}
