package kube

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"
	authenticationv1 "k8s.io/api/authentication/v1"
	"k8s.io/client-go/util/flowcontrol"

	"weft.mesh/weft/control/kube/kubeclient"
	"weft.mesh/weft/spiffe"
)

// Bounds of attestation: a flood of tokens must not become a flood of reviews.
const (
	reviewRate    = 100 // reviews a second
	reviewBurst   = 200
	reviewTimeout = 10 * time.Second
	keepAnswer    = 10 * time.Second // an answer counts again for so long: a pod that is gone is refused that late
	maxAnswers    = 10_000
	maxToken      = 16 << 10 // bytes
)

// Audience is that of the tokens that Istio's templates mount.
const Audience = "istio-ca"

// Attestor finds out which workload has a projected token, by TokenReview.
// A token has to be for the audience, and a workload's bound to a pod: one that was
// copied stops to work with its pod. Safe for concurrent use.
type Attestor struct {
	client      *kubeclient.Client
	trustDomain string
	audiences   []string
	limit       *rate.Limiter
	now         func() time.Time

	mu      sync.Mutex // protects answers
	answers map[[sha256.Size]byte]*attested
}

// attested is an answer, or the wait for one.
type attested struct {
	done  chan struct{} // closed when the rest is there
	id    spiffe.ID
	bound bool // to a pod
	err   error
	until time.Time
}

// NewAttestor makes an attestor; audiences default to Audience.
func NewAttestor(c *kubeclient.Client, trustDomain string, audiences ...string) *Attestor {
	if len(audiences) == 0 {
		audiences = []string{Audience}
	}
	return &Attestor{client: c, trustDomain: trustDomain, audiences: audiences, limit: rate.NewLimiter(reviewRate, reviewBurst), now: time.Now,
		answers: map[[sha256.Size]byte]*attested{}}
}

// Attest returns the SPIFFE ID of the service account that has the token, of a pod.
func (a *Attestor) Attest(ctx context.Context, token string) (spiffe.ID, error) {
	id, bound, err := a.ask(ctx, token)
	if err != nil {
		return spiffe.ID{}, err
	}
	if !bound {
		ns, sa, _ := id.Workload()
		return spiffe.ID{}, fmt.Errorf("token: %s/%s: it is bound to no pod; mount a projected token", ns, sa)
	}
	return id, nil
}

// Caller returns the SPIFFE ID of the service account that has the token, which need not be a pod's: kubectl create
// token and istioctl make such. It proves who asks a question, never who a workload is.
func (a *Attestor) Caller(ctx context.Context, token string) (spiffe.ID, error) {
	id, _, err := a.ask(ctx, token)
	return id, err
}

func (a *Attestor) ask(ctx context.Context, token string) (id spiffe.ID, bound bool, err error) {
	if len(token) > maxToken {
		return spiffe.ID{}, false, fmt.Errorf("token of %d bytes, at most %d", len(token), maxToken)
	}
	key := sha256.Sum256([]byte(token))
	x, mine := a.answer(key)
	if !mine {
		select {
		case <-ctx.Done():
			return spiffe.ID{}, false, ctx.Err()
		case <-x.done:
			return x.id, x.bound, x.err
		}
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), reviewTimeout) // others wait for the answer too
	defer cancel()
	var answered bool
	x.id, x.bound, answered, x.err = a.review(ctx, token)
	a.mu.Lock()
	if x.until = a.now().Add(keepAnswer); !answered {
		delete(a.answers, key) // the next caller may ask again at once
	}
	a.mu.Unlock()
	close(x.done)
	return x.id, x.bound, x.err
}

// answer finds the answer for a token; mine: there is none, and the caller makes it.
func (a *Attestor) answer(key [sha256.Size]byte) (x *attested, mine bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := a.now()
	if x := a.answers[key]; x != nil && (x.until.IsZero() || now.Before(x.until)) {
		return x, false
	}
	if len(a.answers) >= maxAnswers {
		for k, x := range a.answers {
			if !x.until.IsZero() {
				delete(a.answers, k)
			}
		}
	}
	x = &attested{done: make(chan struct{})}
	a.answers[key] = x
	return x, true
}

// review asks the API server; answered is false if it gave no answer about the token.
func (a *Attestor) review(ctx context.Context, token string) (id spiffe.ID, bound, answered bool, err error) {
	if err := a.limit.Wait(ctx); err != nil {
		return id, false, false, errors.New("token: too many to review; try again")
	}
	// Its own limit alone: a herd of proxies in the line that all requests of a client share would
	// keep the lease from being renewed.
	api, err := a.client.Typed(authenticationv1.SchemeGroupVersion)
	if err != nil {
		return id, false, false, err
	}
	out := &authenticationv1.TokenReview{}
	err = api.Post().Resource("tokenreviews").Throttle(flowcontrol.NewFakeAlwaysRateLimiter()).
		Body(&authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: token, Audiences: a.audiences}}).Do(ctx).Into(out)
	if err != nil {
		return id, false, false, fmt.Errorf("token: the API server cannot review it: %w", err)
	}
	id, bound, err = a.identity(&out.Status)
	return id, bound, true, err
}

// identity reads a TokenReview's status; bound tells that the token is a pod's.
func (a *Attestor) identity(st *authenticationv1.TokenReviewStatus) (id spiffe.ID, bound bool, err error) {
	if !st.Authenticated {
		return spiffe.ID{}, false, fmt.Errorf("token: not authenticated: %s", cmp.Or(st.Error, "it is none of this cluster's"))
	}
	if !slices.ContainsFunc(st.Audiences, func(s string) bool { return slices.Contains(a.audiences, s) }) {
		return spiffe.ID{}, false, fmt.Errorf("token: it is for %s, want the audience %s", strings.Join(st.Audiences, ", "), strings.Join(a.audiences, " or "))
	}
	account, ok := strings.CutPrefix(st.User.Username, "system:serviceaccount:")
	ns, sa, two := strings.Cut(account, ":")
	if !ok || !two {
		return spiffe.ID{}, false, fmt.Errorf("token: it is of %q, want a service account", st.User.Username)
	}
	if id, err = spiffe.New(a.trustDomain, ns, sa); err != nil {
		return spiffe.ID{}, false, fmt.Errorf("token: %w", err)
	}
	pod := st.User.Extra["authentication.kubernetes.io/pod-name"]
	return id, len(pod) == 1 && pod[0] != "", nil
}
