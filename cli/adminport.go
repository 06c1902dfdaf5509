package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"weft.mesh/weft/api/admin/client"
)

// adminGet asks a pod's proxy, through the runtime, which connects from
// inside the pod's network namespace.
func (a *app) adminGet(ctx context.Context, p podRef, path string) ([]byte, error) {
	return a.adminDo(ctx, p, http.MethodGet, path)
}

func (a *app) adminDo(ctx context.Context, p podRef, method, path string) ([]byte, error) {
	b, err := a.mesh().AdminPage(ctx, p.ns, p.name, method, path)
	if errors.Is(err, client.ErrNoProxy) && !errors.Is(err, client.ErrNotRunning) {
		return nil, withHint(err, fmt.Sprintf("see `weft ps` for pods that have one, and `weft logs %s -c istio-proxy`", p))
	}
	return b, err
}

// protoValue is a message as plain JSON values.
func protoValue(m proto.Message) (any, error) {
	b, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(m)
	if err != nil {
		return nil, err
	}
	var v any
	return v, json.Unmarshal(b, &v)
}
