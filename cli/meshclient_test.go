package cli

import (
	"encoding/json"
	"slices"
	"testing"

	"weft.mesh/weft/api/admin"
)

// A rollout that the runtime has not heard of yet is one that is waited for.
func TestARolloutThatHasNotBegunIsWaitedFor(t *testing.T) {
	object := func(raw string) admin.Object {
		return admin.Object{Kind: "Deployment", Namespace: "default", Name: "reviews-v2", Raw: json.RawMessage(raw)}
	}
	before, now := object(`{"spec":{"replicas":1}}`), object(`{"spec":{"replicas":2}}`)
	rollout := func(o admin.Object, done bool, message string) []admin.Rollout {
		return []admin.Rollout{{Namespace: o.Namespace, Deployment: o.Name, Object: admin.Digest(o), Done: done, Message: message}}
	}
	tests := []struct {
		name     string
		rollouts []admin.Rollout
		want     []string
	}{
		{"the runtime does not know it", nil, []string{"deployment default/reviews-v2 (not begun)"}},
		{"the runtime knows the version before", rollout(before, true, ""), []string{"deployment default/reviews-v2 (not begun)"}},
		{"pods are exchanged", rollout(now, false, ""), []string{"deployment default/reviews-v2 (rolling out)"}},
		{"it does not run as written", rollout(now, false, "no command"), []string{"deployment default/reviews-v2 (rolling out no command)"}},
		{"done", rollout(now, true, ""), nil},
	}
	for _, tt := range tests {
		if got := behindObjects([]admin.Object{now}, tt.rollouts); !slices.Equal(got, tt.want) {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}
