package pod

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"weft.mesh/weft/api/admin"
	"weft.mesh/weft/local/podspec"
)

// answers is a control plane: each question takes as long as the answer says.
type answers func(n int) (admin.Retired, time.Duration, error)

type asked struct {
	answers answers
	n       int
}

func (a *asked) Retired(ctx context.Context, _, _ string) (admin.Retired, error) {
	a.n++
	r, d, err := a.answers(a.n)
	if !sleep(ctx, d) {
		return admin.Retired{}, ctx.Err()
	}
	return r, err
}

func TestAPodServesOnUntilNobodySendsToItAnyMore(t *testing.T) {
	away := errors.New("nobody listens")
	for name, tt := range map[string]struct {
		control answers
		hurry   time.Duration
		want    time.Duration
	}{
		"all proxies know at once": {
			control: func(int) (admin.Retired, time.Duration, error) { return admin.Retired{Done: true}, 0, nil }, want: 0},
		"the last proxy knows after 3 s": {
			control: func(n int) (admin.Retired, time.Duration, error) {
				return admin.Retired{Done: n == 3}, time.Second, nil
			},
			want: 3 * time.Second},
		"a proxy never answers": {
			control: func(int) (admin.Retired, time.Duration, error) {
				return admin.Retired{Behind: []string{"x"}}, time.Second, nil
			},
			want: 10 * time.Second},
		"no control plane": {
			control: func(int) (admin.Retired, time.Duration, error) { return admin.Retired{}, 0, away }, want: blindDelay},
		"the control plane comes back": {
			control: func(n int) (admin.Retired, time.Duration, error) {
				if n < 4 {
					return admin.Retired{}, 0, away
				}
				return admin.Retired{Done: true}, 0, nil
			}, want: 3 * retireRetry},
		"the whole mesh ends": {
			control: func(int) (admin.Retired, time.Duration, error) { return admin.Retired{}, time.Second, nil },
			hurry:   1500 * time.Millisecond, want: 1500 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPod(t, Config{Name: "web-1", Spec: podspec.Spec{Containers: []podspec.Container{{Name: "app"}}}})
			synctest.Test(t, func(t *testing.T) {
				p.hurry, p.stop = make(chan struct{}), make(chan struct{})
				p.env.DrainDelay, p.env.Control = 10*time.Second, &asked{answers: tt.control}
				if tt.hurry > 0 {
					time.AfterFunc(tt.hurry, p.Hurry)
				}
				start := time.Now()
				p.retire(t.Context())
				p.wg.Wait()
				if got := time.Since(start); got < tt.want || got > tt.want+time.Millisecond {
					t.Errorf("ended its service after %v, want %v", got, tt.want)
				}
			})
		})
	}
}
