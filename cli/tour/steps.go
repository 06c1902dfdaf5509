package tour

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// User of the tasks that treat one person differently.
const jason = "jason"

// What the sample shows when a service does not answer.
const (
	reviewsGone = "product reviews are currently unavailable"
	ratingsGone = "Ratings service is currently unavailable"
	denied      = "RBAC: access denied"
)

const (
	routesV1  = "networking/virtual-service-all-v1.yaml"
	routesTo2 = "networking/virtual-service-reviews-test-v2.yaml"
	rules     = "networking/destination-rule-all.yaml"
)

// Steps are the classic tasks in an order in which each begins where the one before ended.
func Steps() []*Step {
	return []*Step{
		{
			Title:   "Three versions of one service",
			Explain: "Bookinfo's reviews service runs in three versions. Without any rule the mesh balances over all of them: reload the page and watch the stars change.",
			Try:     "open http://localhost:8080/productpage and reload it",
			Run:     allVersions,
		},
		{
			Title:   "All traffic to v1",
			Explain: "A VirtualService sends every request for reviews to subset v1; a DestinationRule says which pods v1 is. No pod was touched.",
			Run:     allToV1,
		},
		{
			Title:   "One user to v2",
			Explain: "Routes can look at requests: who signs in as jason carries the header end-user: jason and gets v2, with black stars. Everybody else stays on v1.",
			Try:     "sign in as jason (any password)",
			Run:     jasonToV2,
		},
		{
			Title:   "Injected delay",
			Explain: "Ratings is delayed by 7 seconds, for jason only. Reviews would wait 10 s, but productpage gives up after twice 3 s: a bug that shows only when a service is slow, found without breaking anything for others.",
			Run:     delay,
		},
		{
			Title:   "Injected abort",
			Explain: "Ratings answers jason with 500. The page must go on without stars.",
			Run:     abort,
			Undo:    []string{"networking/virtual-service-ratings-test-abort.yaml"},
		},
		{
			Title:   "Shift by weight: half and half",
			Explain: "Half of the requests to v1 and half to v3, whatever the number of pods.",
			Run: func(ctx context.Context, r *Run) error {
				return shift(ctx, r, "networking/virtual-service-reviews-50-v3.yaml", "v3", 400, 35, 65)
			},
		},
		{
			Title:   "Shift by weight: a canary",
			Explain: "Nine of ten requests to v1, one of ten to v2: how a new version is tried on few users.",
			Run: func(ctx context.Context, r *Run) error {
				return shift(ctx, r, "networking/virtual-service-reviews-90-10.yaml", "v2", 600, 4, 18)
			},
		},
		{
			Title:   "Mirror",
			Explain: "v1 answers, and v3 gets a copy of every request whose answer is thrown away: a new version under real load, at no risk.",
			Run:     mirror,
			Redo:    []string{routesV1},
		},
		{
			Title:   "Circuit breaker",
			Explain: "At most one connection to details and one request that waits. What is more is refused at once with 503 instead of piling up.",
			Run:     breaker,
			Redo:    []string{rules},
		},
		{
			Title:   "Strict mutual TLS",
			Explain: "Sidecars speak mutual TLS with each other from the first second, but also accept plaintext, so that a mesh can grow step by step. STRICT ends that: a client without an identity is shut out.",
			Run:     strict,
			Undo:    []string{"networking/peer-authentication-strict.yaml"},
		},
		{
			Title:   "Deny by default, allow by identity",
			Explain: "An empty AuthorizationPolicy denies everything. Then each service is opened for exactly the identity that needs it, proved by certificate and not by address.",
			Run:     authorize,
			Undo: []string{
				"networking/authorization-allow-productpage.yaml", "networking/authorization-allow-details.yaml",
				"networking/authorization-allow-reviews.yaml", "networking/authorization-allow-ratings.yaml",
				"networking/authorization-deny-all.yaml",
			},
		},
		{
			Title:   "Retries hide a flaky service",
			Explain: "v2 of reviews now fails every fourth request. Retries in the caller's sidecar make that invisible.",
			Run:     retries,
			Redo:    []string{"platform/bookinfo.yaml", routesV1},
		},
	}
}

func allVersions(ctx context.Context, r *Run) error {
	if err := r.Apply(ctx, rules); err != nil {
		return err
	}
	c, err := r.versions(ctx, "", 60)
	if err != nil {
		return err
	}
	r.Expect("reviews behind 60 loads of the page", "v1, v2 and v3", c.String(), c["v1"] > 0 && c["v2"] > 0 && c["v3"] > 0 && len(c) == 3)
	return nil
}

func allToV1(ctx context.Context, r *Run) error {
	if err := r.Apply(ctx, routesV1); err != nil {
		return err
	}
	c, err := r.versions(ctx, "", 30)
	if err != nil {
		return err
	}
	r.Expect("reviews behind 30 loads", "only v1", c.String(), c["v1"] == 30)
	return nil
}

func jasonToV2(ctx context.Context, r *Run) error {
	if err := r.Apply(ctx, routesTo2); err != nil {
		return err
	}
	c, err := r.versions(ctx, jason, 15)
	if err != nil {
		return err
	}
	r.Expect("reviews for jason", "only v2", c.String(), c["v2"] == 15)
	if c, err = r.versions(ctx, "", 15); err != nil {
		return err
	}
	r.Expect("reviews for anybody else", "only v1", c.String(), c["v1"] == 15)
	return nil
}

func delay(ctx context.Context, r *Run) error {
	if err := r.Apply(ctx, "networking/virtual-service-ratings-test-delay.yaml"); err != nil {
		return err
	}
	p, err := r.timed(ctx, jason, func(p *Page) bool { return p.Took > 5500*time.Millisecond && p.Took < 9*time.Second })
	if err != nil {
		return err
	}
	got := fmt.Sprintf("status %d after %.1f s, %s", p.Status, p.Took.Seconds(), has(p.Body, reviewsGone))
	r.Expect("the page for jason", "about 6 s, then an error instead of reviews", got,
		p.Status == 200 && p.Took > 5500*time.Millisecond && p.Took < 9*time.Second && strings.Contains(p.Body, reviewsGone))
	if p, err = r.timed(ctx, "", func(p *Page) bool { return p.Took < time.Second }); err != nil {
		return err
	}
	r.Expect("the page for anybody else", "at once, with reviews", fmt.Sprintf("status %d after %.2f s, reviews %s", p.Status, p.Took.Seconds(), p.Reviews),
		p.Status == 200 && p.Took < time.Second && p.Reviews == "v1")
	return nil
}

// timed loads the page, and up to twice more if that takes another time than expected: every load has an injected delay
// or none has it, but one that the machine was too busy for tells nothing.
func (r *Run) timed(ctx context.Context, user string, asExpected func(*Page) bool) (p *Page, err error) {
	for range 3 {
		if p, err = r.Mesh.Load(ctx, user); err != nil || asExpected(p) {
			break
		}
	}
	return p, err
}

func has(body, text string) string {
	if strings.Contains(body, text) {
		return fmt.Sprintf("with %q", text)
	}
	return fmt.Sprintf("without %q", text)
}

func abort(ctx context.Context, r *Run) error {
	if err := r.Apply(ctx, "networking/virtual-service-ratings-test-abort.yaml"); err != nil {
		return err
	}
	p, err := r.Mesh.Load(ctx, jason)
	if err != nil {
		return err
	}
	r.Expect("the page for jason", "reviews without ratings", fmt.Sprintf("status %d, reviews %s, %s", p.Status, p.Reviews, has(p.Body, ratingsGone)),
		p.Status == 200 && p.Reviews == "v2" && strings.Contains(p.Body, ratingsGone))
	if p, err = r.Mesh.Load(ctx, ""); err != nil {
		return err
	}
	r.Expect("the page for anybody else", "unharmed", fmt.Sprintf("status %d, reviews %s, %s", p.Status, p.Reviews, has(p.Body, ratingsGone)),
		p.Status == 200 && p.Reviews == "v1" && !strings.Contains(p.Body, ratingsGone))
	return nil
}

// shift looks at the share of one version. Requests are split by chance, so n is such that a sound mesh
// is out of bounds less than once in 10^7 runs (binomial).
func shift(ctx context.Context, r *Run, file, version string, n int, low, high float64) error {
	if err := r.Apply(ctx, file); err != nil {
		return err
	}
	c, err := r.versions(ctx, "", n)
	if err != nil {
		return err
	}
	share := c.share(version)
	r.Expect(fmt.Sprintf("share of %s in %d loads", version, n), fmt.Sprintf("%.0f to %.0f %%", low, high),
		fmt.Sprintf("%.0f %% (%s)", share, c), share >= low && share <= high && len(c) == 2)
	return nil
}

// inboundRequests counts what a Deployment's sidecars let in.
func inboundRequests(ctx context.Context, r *Run, deployment string) (float64, error) {
	m, err := r.Mesh.Metrics(ctx, "default", deployment)
	if err != nil {
		return 0, err
	}
	return m.Sum("istio_requests_total", map[string]string{"reporter": "destination"}), nil
}

func mirror(ctx context.Context, r *Run) error {
	if err := r.Apply(ctx, "networking/virtual-service-reviews-mirror.yaml"); err != nil {
		return err
	}
	before, err := inboundRequests(ctx, r, "reviews-v3")
	if err != nil {
		return err
	}
	const n = 40
	c, err := r.versions(ctx, "", n)
	if err != nil {
		return err
	}
	r.Expect("who answers the page", "only v1", c.String(), c["v1"] == n)
	return r.eventually(ctx, "copies that reached v3", fmt.Sprintf("at least %d", n), func() (string, bool, error) {
		after, err := inboundRequests(ctx, r, "reviews-v3")
		return fmt.Sprintf("%.0f", after-before), after-before >= n, err
	})
}

func breaker(ctx context.Context, r *Run) error {
	const url = "http://details:9080/details/0"
	c, err := r.calls(ctx, "default", url, "-n", "60", "-c", "8")
	if err != nil {
		return err
	}
	r.Expect("60 calls, 8 at a time, without the rule", "all 200", c.String(), c["200"] == 60)
	if err := r.Apply(ctx, "networking/destination-rule-circuit-breaker.yaml"); err != nil {
		return err
	}
	if c, err = r.calls(ctx, "default", url, "-n", "200", "-c", "20"); err != nil {
		return err
	}
	r.Expect("200 calls, 20 at a time, with one connection allowed", "some 200, the rest 503", c.String(), c["200"] > 0 && c["503"] > 0 && c["200"]+c["503"] == 200)
	return r.eventually(ctx, "requests with flag UO in the client's metrics", "as many as were refused", func() (string, bool, error) {
		m, err := r.Mesh.Metrics(ctx, "default", "sleep")
		if err != nil {
			return "", false, err
		}
		n := m.Sum("istio_requests_total", map[string]string{"reporter": "source", "response_flags": "UO", "response_code": "503"})
		return fmt.Sprintf("%.0f", n), int(n) == c["503"], nil
	})
}

func strict(ctx context.Context, r *Run) error {
	const url = "http://details.default:9080/details/0"
	c, err := r.calls(ctx, "legacy", url, "-n", "5", "-fresh")
	if err != nil {
		return err
	}
	r.Expect("a client without sidecar, before", "200 over plaintext", c.String(), c["200"] == 5)
	if err := r.Apply(ctx, "networking/peer-authentication-strict.yaml"); err != nil {
		return err
	}
	if c, err = r.calls(ctx, "legacy", url, "-n", "5", "-fresh"); err != nil {
		return err
	}
	r.Expect("a client without sidecar, after", "no answer", c.String(), c["200"] == 0 && c.total() == 5 && !answered(c))
	if c, err = r.calls(ctx, "default", url, "-n", "5", "-fresh"); err != nil {
		return err
	}
	r.Expect("a client with sidecar", "200 over mutual TLS", c.String(), c["200"] == 5)
	return r.eventually(ctx, "requests in details' metrics from spiffe://cluster.local/ns/default/sa/sleep over mutual TLS", "at least 5", func() (string, bool, error) {
		m, err := r.Mesh.Metrics(ctx, "default", "details-v1")
		if err != nil {
			return "", false, err
		}
		n := m.Sum("istio_requests_total", map[string]string{
			"reporter": "destination", "connection_security_policy": "mutual_tls",
			"source_principal": "spiffe://cluster.local/ns/default/sa/sleep",
		})
		return fmt.Sprintf("%.0f", n), n >= 5, nil
	})
}

// answered tells whether any HTTP answer came.
func answered(c counts) bool {
	for k := range c {
		if !strings.HasPrefix(k, "no answer") {
			return true
		}
	}
	return false
}

func authorize(ctx context.Context, r *Run) error {
	page := func(what, want string, ok func(*Page) bool) error {
		p, err := r.Mesh.Load(ctx, "")
		if err != nil {
			return err
		}
		got := fmt.Sprintf("status %d, reviews %s", p.Status, p.Reviews)
		if strings.Contains(p.Body, denied) {
			got += fmt.Sprintf(", with %q", denied)
		}
		r.Expect(what, want, got, ok(p))
		return nil
	}
	steps := []struct {
		file, what, want string
		ok               func(*Page) bool
	}{
		{"networking/authorization-deny-all.yaml", "the page with everything denied", "403 RBAC: access denied",
			func(p *Page) bool { return p.Status == 403 && strings.TrimSpace(p.Body) == denied }},
		{"networking/authorization-allow-productpage.yaml", "the page with productpage open for the gateway", "200, details and reviews missing",
			func(p *Page) bool {
				return p.Status == 200 && p.Reviews == "" && strings.Contains(p.Body, reviewsGone)
			}},
		{"networking/authorization-allow-details.yaml", "details open for productpage", "200, reviews missing",
			func(p *Page) bool { return p.Status == 200 && p.Reviews == "" && strings.Contains(p.Body, "ISBN-10") }},
		{"networking/authorization-allow-reviews.yaml", "reviews open for productpage", "200 with reviews",
			func(p *Page) bool { return p.Status == 200 && p.Reviews != "" }},
		{"networking/authorization-allow-ratings.yaml", "ratings open for reviews", "200, everything there",
			func(p *Page) bool {
				return p.Status == 200 && p.Reviews != "" && !strings.Contains(p.Body, ratingsGone)
			}},
	}
	for _, s := range steps {
		if err := r.Apply(ctx, s.file); err != nil {
			return err
		}
		if err := page(s.what, s.want, s.ok); err != nil {
			return err
		}
	}
	c, err := r.calls(ctx, "default", "http://ratings:9080/ratings/0", "-n", "5")
	if err != nil {
		return err
	}
	r.Expect("ratings called by sleep, which has another identity", "403", c.String(), c["403"] == 5)
	return nil
}

func retries(ctx context.Context, r *Run) error {
	if err := r.Apply(ctx, "platform/reviews-v2-flaky.yaml", "networking/virtual-service-reviews-v2-no-retry.yaml"); err != nil {
		return err
	}
	if err := r.Mesh.Ready(ctx); err != nil {
		return err
	}
	const url = "http://reviews:9080/reviews/0"
	c, err := r.calls(ctx, "default", url, "-n", "100")
	if err != nil {
		return err
	}
	r.Expect("100 calls without retries", "10 to 45 failures", c.String(), c["503"] >= 10 && c["503"] <= 45)
	if err := r.Apply(ctx, "networking/virtual-service-reviews-retry.yaml"); err != nil {
		return err
	}
	if c, err = r.calls(ctx, "default", url, "-n", "100"); err != nil {
		return err
	}
	r.Expect("100 calls with retries", "no failure", c.String(), c["200"] == 100)
	return nil
}
