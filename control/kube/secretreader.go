package kube

import (
	"context"
	"fmt"
	"sync"
	"time"

	"golang.org/x/time/rate"
	authorizationv1 "k8s.io/api/authorization/v1"
	"k8s.io/client-go/util/flowcontrol"

	"weft.mesh/weft/control/kube/kubeclient"
)

// Bounds of access reviews.
const (
	accessRate    = 20 // reviews a second
	accessBurst   = 100
	accessTimeout = 5 * time.Second
	keepAccess    = time.Minute // an answer counts for so long
	staleAccess   = time.Hour   // and for so long while the API server gives no other
	maxAccounts   = 10_000
)

// SecretReader tells whether service accounts may list the Secrets of their namespaces, by SubjectAccessReview: gateways get the
// certificates of Istio's Gateways by that (as from Istio). Safe for concurrent use.
type SecretReader struct {
	client *kubeclient.Client
	limit  *rate.Limiter
	now    func() time.Time

	mu      sync.Mutex // protects answers
	answers map[account]access
}

type account struct{ namespace, name string }

// access is an answer of the API server.
type access struct {
	allowed bool
	at      time.Time
}

// NewSecretReader makes a reader; it asks nothing yet.
func NewSecretReader(c *kubeclient.Client) *SecretReader {
	return &SecretReader{client: c, limit: rate.NewLimiter(accessRate, accessBurst), now: time.Now, answers: map[account]access{}}
}

// MayRead tells whether the service account may list the Secrets of its namespace. An error is no answer: the API server is away,
// or lets nobody ask, and there is no answer of the last hour either.
func (r *SecretReader) MayRead(ctx context.Context, namespace, name string) (bool, error) {
	k := account{namespace, name}
	was, known := r.answer(k, staleAccess)
	if known && r.now().Sub(was.at) < keepAccess {
		return was.allowed, nil
	}
	ctx, cancel := context.WithTimeout(ctx, accessTimeout)
	defer cancel()
	allowed, err := r.review(ctx, k)
	if err != nil {
		if known {
			return was.allowed, nil
		}
		return false, fmt.Errorf("secrets of namespace %s: whether service account %s may list them: %w", namespace, name, err)
	}
	r.keep(k, allowed)
	return allowed, nil
}

func (r *SecretReader) answer(k account, age time.Duration) (access, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	x, ok := r.answers[k]
	return x, ok && r.now().Sub(x.at) < age
}

// keep remembers an answer. What is too old goes when there are too many, and all if that is not enough.
func (r *SecretReader) keep(k account, allowed bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.now()
	if len(r.answers) >= maxAccounts {
		for k, x := range r.answers {
			if now.Sub(x.at) >= keepAccess {
				delete(r.answers, k)
			}
		}
		if len(r.answers) >= maxAccounts {
			clear(r.answers)
		}
	}
	r.answers[k] = access{allowed, now}
}

func (r *SecretReader) review(ctx context.Context, k account) (bool, error) {
	if err := r.limit.Wait(ctx); err != nil {
		return false, fmt.Errorf("too many accounts to review: %w", err)
	}
	api, err := r.client.Typed(authorizationv1.SchemeGroupVersion)
	if err != nil {
		return false, err
	}
	in := &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
		User:               "system:serviceaccount:" + k.namespace + ":" + k.name,
		Groups:             []string{"system:serviceaccounts", "system:serviceaccounts:" + k.namespace, "system:authenticated"},
		ResourceAttributes: &authorizationv1.ResourceAttributes{Namespace: k.namespace, Verb: "list", Version: "v1", Resource: "secrets"},
	}}
	out := &authorizationv1.SubjectAccessReview{}
	// Its own limit alone, as for tokens: see [Attestor].
	err = api.Post().Resource("subjectaccessreviews").Throttle(flowcontrol.NewFakeAlwaysRateLimiter()).Body(in).Do(ctx).Into(out)
	return out.Status.Allowed && !out.Status.Denied && err == nil, err
}
