package kube

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/rest"
)

// Version is the API server's, as in /version.
type Version struct {
	GitVersion string `json:"gitVersion"`
	Major      string `json:"major"`
	Minor      string `json:"minor"`
}

// AtLeast compares with MAJOR.MINOR.
func (v Version) AtLeast(major, minor int) bool {
	a, err1 := strconv.Atoi(v.Major)
	b, err2 := strconv.Atoi(strings.TrimRight(v.Minor, "+"))
	return err1 == nil && err2 == nil && (a > major || a == major && b >= minor)
}

// raw is a client for paths that have no typed or dynamic one.
func (c *Cluster) raw() (*rest.RESTClient, error) {
	cfg := rest.CopyConfig(c.Config)
	cfg.GroupVersion = &schema.GroupVersion{Version: "v1"}
	cfg.APIPath = "/api"
	cfg.NegotiatedSerializer = serializer.NewCodecFactory(runtime.NewScheme()).WithoutConversion()
	return rest.RESTClientFor(cfg)
}

// Version asks for the API server's version; it is the cheapest sign of life.
func (c *Cluster) Version(ctx context.Context) (Version, error) {
	var v Version
	r, err := c.raw()
	if err != nil {
		return v, err
	}
	b, err := r.Get().AbsPath("/version").DoRaw(ctx)
	if err != nil {
		return v, c.Explain("get", "/version", err)
	}
	if err := json.Unmarshal(b, &v); err != nil {
		return v, fmt.Errorf("context %q: /version: %w", c.Context, err)
	}
	return v, nil
}
