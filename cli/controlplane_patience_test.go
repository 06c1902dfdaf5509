package cli

import (
	"context"
	"errors"
	"fmt"
	"net"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Who starts while the API server is away or overwhelmed waits; who is told no ends, and says why.
func TestAnAPIServerThatGivesNoAnswerIsWaitedFor(t *testing.T) {
	maps := schema.GroupResource{Resource: "configmaps"}
	for _, c := range []struct {
		err  error
		want bool
	}{
		{&net.OpError{Op: "dial", Err: errors.New("connection refused")}, true},
		{context.DeadlineExceeded, true},
		{apierrors.NewInternalError(errors.New("etcdserver: request timed out")), true},
		{apierrors.NewServerTimeout(maps, "get", 1), true},
		{apierrors.NewTimeoutError("slow", 1), true},
		{apierrors.NewTooManyRequests("later", 1), true},
		{apierrors.NewServiceUnavailable("starting"), true},
		{apierrors.NewForbidden(maps, "weft", errors.New("no right")), false},
		{errors.New("secret weft-system/cacerts cannot be used"), false},
	} {
		if got := noAnswer(fmt.Errorf("configmap: %w", c.err)); got != c.want {
			t.Errorf("%v: %v, want %v", c.err, got, c.want)
		}
	}
}
