// Package kubeclient is the way to an API server that everything on Kubernetes
// shares: typed REST clients of the few built-in groups that Weft uses, read as
// protobuf and written as JSON, and a dynamic client for custom resources.
//
// It is made of client-go's REST client and not of its clientset, which links
// every group there is: that costs a minute of compile time and 20 MB.
package kubeclient

import (
	"fmt"
	"math"
	"net"
	"net/http"
	"sync"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
)

// Limits of requests that are no watches, in requests a second and at once:
// writers are the only ones who make many.
const (
	qps   = 50
	burst = 100
)

// requestTimeout bounds a request for a page of the server's discovery.
const requestTimeout = 30 * time.Second

// dialTimeout bounds an attempt to connect. TCP asks a server that is cut off again after 1, 3, 7, 15 s …: an attempt that
// has waited long finds out late that the server is there again, a new one at once.
const dialTimeout = 5 * time.Second

// MaxBackoff is the longest wait between attempts to watch, up to half of it more by chance. client-go's own is 30 s and as much
// again: so long nobody would hear of anything after the API server is back.
const MaxBackoff = 5 * time.Second

// Backoff is how long attempts to list and watch wait: from a tenth of longest to that.
func Backoff(longest time.Duration) *wait.Backoff {
	return &wait.Backoff{Duration: longest / 10, Cap: longest, Steps: math.MaxInt32, Factor: 2, Jitter: 0.5}
}

// Client speaks to one API server. Safe for concurrent use.
type Client struct {
	// Dynamic reads and writes objects of any kind as JSON.
	Dynamic dynamic.Interface
	// Metadata watches objects of any kind without their content.
	Metadata metadata.Interface

	http *http.Client
	cfg  *rest.Config
	mu   sync.Mutex // protects all
	all  map[schema.GroupVersion]rest.Interface
}

// codecs knows the groups that are read as typed objects.
var codecs = sync.OnceValue(func() serializer.CodecFactory {
	s := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{corev1.AddToScheme, appsv1.AddToScheme, discoveryv1.AddToScheme, coordinationv1.AddToScheme, authenticationv1.AddToScheme, authorizationv1.AddToScheme} {
		if err := add(s); err != nil {
			panic(err) // a program that was put together wrongly
		}
	}
	metav1.AddToGroupVersion(s, schema.GroupVersion{Version: "v1"})
	return serializer.NewCodecFactory(s)
})

// New makes a client. userAgent tells the server's operators who asks.
func New(cfg *rest.Config, userAgent string) (*Client, error) {
	cfg = rest.CopyConfig(cfg)
	cfg.UserAgent = userAgent
	if cfg.QPS == 0 {
		cfg.QPS, cfg.Burst = qps, burst
	}
	if cfg.Dial == nil {
		cfg.Dial = (&net.Dialer{Timeout: dialTimeout, KeepAlive: 30 * time.Second}).DialContext
	}
	// Warnings of deprecated versions are nothing that an operator of the mesh can change.
	cfg.WarningHandler = rest.NoWarnings{}
	h, err := rest.HTTPClientFor(cfg)
	if err != nil {
		return nil, fmt.Errorf("kubernetes: %w", err)
	}
	c := &Client{http: h, cfg: cfg, all: map[schema.GroupVersion]rest.Interface{}}
	if c.Dynamic, err = dynamic.NewForConfigAndClient(cfg, h); err != nil {
		return nil, fmt.Errorf("kubernetes: %w", err)
	}
	if c.Metadata, err = metadata.NewForConfigAndClient(metadata.ConfigFor(cfg), h); err != nil {
		return nil, fmt.Errorf("kubernetes: %w", err)
	}
	return c, nil
}

// Host is where the API server is, for messages.
func (c *Client) Host() string { return c.cfg.Host }

// Typed is the client of a built-in group: core, apps, discovery.k8s.io, coordination.k8s.io, authentication.k8s.io or authorization.k8s.io.
func (c *Client) Typed(gv schema.GroupVersion) (rest.Interface, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if r := c.all[gv]; r != nil {
		return r, nil
	}
	cfg := rest.CopyConfig(c.cfg)
	cfg.GroupVersion, cfg.APIPath = &gv, "/apis"
	if gv.Group == "" {
		cfg.APIPath = "/api"
	}
	cfg.NegotiatedSerializer = codecs().WithoutConversion()
	cfg.ContentType = runtime.ContentTypeJSON
	cfg.AcceptContentTypes = runtime.ContentTypeProtobuf + "," + runtime.ContentTypeJSON
	r, err := rest.RESTClientForConfigAndClient(cfg, c.http)
	if err != nil {
		return nil, fmt.Errorf("kubernetes: client of %s: %w", gv, err)
	}
	c.all[gv] = r
	return r, nil
}

// Versions asks for the served versions of a group, the preferred first; none if the group is not there.
func (c *Client) Versions(group string) ([]string, error) {
	r, err := c.Typed(corev1.SchemeGroupVersion)
	if err != nil {
		return nil, err
	}
	var g metav1.APIGroup
	if err := getJSON(r, "/apis/"+group, &g); err != nil {
		return nil, err
	}
	out := []string{}
	for _, v := range g.Versions {
		out = append(out, v.Version)
	}
	return out, nil
}

// Serves tells whether a group version has a resource (its plural name).
func (c *Client) Serves(gv schema.GroupVersion, resource string) (bool, error) {
	r, err := c.Typed(corev1.SchemeGroupVersion)
	if err != nil {
		return false, err
	}
	var l metav1.APIResourceList
	if err := getJSON(r, "/apis/"+gv.String(), &l); err != nil {
		return false, err
	}
	for _, x := range l.APIResources {
		if x.Name == resource {
			return true, nil
		}
	}
	return false, nil
}
