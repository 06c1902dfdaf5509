package gateway

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"sync"
	"time"

	"golang.org/x/time/rate"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"weft.mesh/weft/control/gatewayapi"
	"weft.mesh/weft/control/inject"
	"weft.mesh/weft/control/kube/kubeclient"
	"weft.mesh/weft/model"
)

// Bounds of writing, in requests a second and at once, and the wait after one that failed.
const (
	writeRate  = 20
	writeBurst = 50
	retryAfter = 5 * time.Second
	keepRead   = 15 * time.Second // how long an annotation of a Gateway, or its parameters, may change unseen
	resync     = 5 * time.Minute  // everything is applied again, so that what others changed comes back
)

// manager is the field manager of what is applied.
const manager = "weft-gateway"

// Settings of a Controller. Client, Wanted, Changed, Inject and Report must be set.
type Settings struct {
	Client *kubeclient.Client
	// Wanted are the deployments of the moment; Changed is closed when they are others.
	Wanted  func() []gatewayapi.Deployment
	Changed func() <-chan struct{}
	// Mine tells whether this revision runs what serves a Gateway; what another runs is left alone. nil: all are.
	Mine func(gatewayapi.Deployment) bool
	// Moved is signalled when Mine answers something else; nil: never.
	Moved <-chan struct{}
	// Inject makes the proxy's container, as for pods of the template gateway.
	Inject func() *inject.Config
	// Report takes what became of all Gateways, by their keys.
	Report func(map[model.Key]gatewayapi.Infrastructure)
	Log    *slog.Logger // default: discard
}

// Controller runs gateways.
type Controller struct {
	set   Settings
	limit *rate.Limiter
	seen  *stores

	// Run only:
	applied  map[objectKey]applied
	said     map[model.Key]string // problems that were logged
	read     map[model.Key]read
	reported map[model.Key]gatewayapi.Infrastructure
}

// read is what was read for a Gateway lately; deployments' states change more often than that.
type read struct {
	owner   *unstructured.Unstructured
	over    overlays
	problem string // with the parameters
	at      time.Time
}

// objectKey is one object of ours.
type objectKey struct {
	gvr             schema.GroupVersionResource
	namespace, name string
}

// applied is what was written of an object.
type applied struct {
	sum        [sha256.Size]byte
	generation int64
	uid        string
	at         time.Time
}

// New makes a controller; it starts nothing.
func New(set Settings) *Controller {
	if set.Log == nil {
		set.Log = slog.New(slog.DiscardHandler)
	}
	if set.Mine == nil {
		set.Mine = func(gatewayapi.Deployment) bool { return true }
	}
	return &Controller{set: set, limit: rate.NewLimiter(writeRate, writeBurst)}
}

// Run brings the cluster to what is wanted until ctx ends. What runs then goes on running.
func (c *Controller) Run(ctx context.Context) {
	c.seen, c.applied, c.said, c.read = newStores(), map[objectKey]applied{}, map[model.Key]string{}, map[model.Key]read{}
	c.reported = nil
	var wg sync.WaitGroup
	defer wg.Wait()
	c.seen.run(ctx, &wg, c.set.Client.Dynamic, c.set.Log)
	tick := time.NewTicker(keepRead)
	defer tick.Stop()
	for {
		changed := c.set.Changed()
		again := c.round(ctx)
		var retry <-chan time.Time
		if again {
			retry = time.After(retryAfter)
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
			clear(c.read)
		case <-c.set.Moved:
		case <-c.seen.wake:
		case <-tick.C:
		case <-retry:
		}
	}
}

// round does everything once; true: try again soon.
func (c *Controller) round(ctx context.Context) (again bool) {
	if !c.seen.synced() {
		return false // the stores wake us
	}
	keep := map[objectKey]bool{}
	report := map[model.Key]gatewayapi.Infrastructure{}
	for _, d := range c.set.Wanted() {
		if !c.set.Mine(d) {
			for _, k := range c.keysOf(d) {
				keep[k] = true
				delete(c.applied, k) // should it come back, it is not what we made of it
			}
			continue
		}
		infra, keys, err := c.deploy(ctx, d)
		for _, k := range keys {
			keep[k] = true
		}
		if err != nil {
			if ctx.Err() != nil {
				return false
			}
			again = true
			infra.Problem = err.Error()
		}
		c.say(d.Gateway, infra.Problem)
		report[d.Gateway] = infra
	}
	again = c.prune(ctx, keep) || again
	if ctx.Err() == nil && !reflect.DeepEqual(report, c.reported) {
		c.reported = report
		c.set.Report(report)
	}
	return again
}

// say logs a problem once.
func (c *Controller) say(k model.Key, problem string) {
	if c.said[k] == problem {
		return
	}
	c.said[k] = problem
	if problem != "" {
		c.set.Log.Warn("kubernetes: a gateway cannot be deployed", "gateway", k.String(), "error", problem)
	}
}

// deploy brings one gateway up to date. keys are the objects that it has, whether or not that worked.
func (c *Controller) deploy(ctx context.Context, d gatewayapi.Deployment) (gatewayapi.Infrastructure, []objectKey, error) {
	infra := c.infrastructure(d)
	if d.Hold {
		return infra, c.keysOf(d), nil // what runs, goes on; nothing is made for a Gateway that is not accepted
	}
	r, err := c.look(ctx, d)
	if apierrors.IsNotFound(err) {
		return infra, c.keysOf(d), nil // it is gone, and we are about to be told
	}
	if err != nil {
		return infra, c.keysOf(d), err
	}
	if r.problem != "" {
		infra.InvalidParameters = r.problem
		return infra, c.keysOf(d), nil // what runs, goes on
	}
	objs, err := objectsOf(d, r.owner, c.set.Inject(), r.over)
	var bad *parameterError
	if errors.As(err, &bad) {
		infra.InvalidParameters = bad.Error()
		return infra, c.keysOf(d), nil
	}
	if err != nil {
		return infra, c.keysOf(d), err
	}
	var keys []objectKey
	for _, o := range objs {
		keys = append(keys, keyFor(o))
	}
	for _, o := range objs {
		if err := c.apply(ctx, o); err != nil {
			return infra, keys, err
		}
	}
	return infra, keys, nil
}

// look reads a Gateway and its parameters, unless that was done just now.
func (c *Controller) look(ctx context.Context, d gatewayapi.Deployment) (read, error) {
	if r, ok := c.read[d.Gateway]; ok && time.Since(r.at) < keepRead {
		return r, nil
	}
	r := read{at: time.Now()}
	var err error
	if r.owner, err = c.set.Client.Dynamic.Resource(gateways).Namespace(d.Namespace).Get(ctx, d.Gateway.Name, metav1.GetOptions{}); err != nil {
		return r, fmt.Errorf("gateway %s/%s: %w", d.Namespace, d.Gateway.Name, err)
	}
	if r.over, r.problem, err = c.parameters(ctx, d); err != nil {
		return r, err
	}
	c.read[d.Gateway] = r
	return r, nil
}

// keysOf are all objects that a gateway may have: none of them is pruned.
func (c *Controller) keysOf(d gatewayapi.Deployment) []objectKey {
	var out []objectKey
	for _, gvr := range owned {
		out = append(out, objectKey{gvr, d.Namespace, d.Name})
	}
	return out
}

// apply writes an object if it is another than what was written, or somebody changed it.
func (c *Controller) apply(ctx context.Context, o *unstructured.Unstructured) error {
	k := keyFor(o)
	b, err := json.Marshal(o.Object)
	if err != nil {
		return err
	}
	sum := sha256.Sum256(b)
	have, there := c.seen.get(k)
	was := c.applied[k]
	if there && was.sum == sum && was.uid == string(have.GetUID()) && was.generation == have.GetGeneration() && time.Since(was.at) < resync {
		return nil
	}
	what := fmt.Sprintf("%s %s/%s", o.GetKind(), k.namespace, k.name)
	client := c.set.Client.Dynamic.Resource(k.gvr).Namespace(k.namespace)
	if !there {
		// Somebody else's object of this name is not ours to change.
		now, err := client.Get(ctx, k.name, metav1.GetOptions{})
		if err == nil && now.GetLabels()[labelManaged] != managedBy {
			return fmt.Errorf("%s is there already and not Weft's: give the Gateway another name, or delete it", what)
		}
		if err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("%s: %w", what, err)
		}
	}
	if err := c.limit.Wait(ctx); err != nil {
		return err
	}
	now, err := client.Apply(ctx, k.name, o, metav1.ApplyOptions{FieldManager: manager, Force: true})
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	c.applied[k] = applied{sum, now.GetGeneration(), string(now.GetUID()), time.Now()}
	return nil
}

// prune deletes objects of ours that no Gateway wants any more.
func (c *Controller) prune(ctx context.Context, keep map[objectKey]bool) (again bool) {
	for _, k := range c.seen.keys() {
		if keep[k] {
			continue
		}
		delete(c.applied, k)
		policy := metav1.DeletePropagationBackground
		if c.limit.Wait(ctx) != nil {
			return false
		}
		err := c.set.Client.Dynamic.Resource(k.gvr).Namespace(k.namespace).Delete(ctx, k.name, metav1.DeleteOptions{PropagationPolicy: &policy})
		if err != nil && !apierrors.IsNotFound(err) && ctx.Err() == nil {
			c.set.Log.Warn("kubernetes: an object of a gateway that is gone cannot be deleted", "resource", k.gvr.Resource, "name", k.namespace+"/"+k.name, "error", err)
			again = true
		}
	}
	return again
}
