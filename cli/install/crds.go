package install

import (
	"context"
	"fmt"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// bundleVersion is where the Gateway API's definitions say which release they are of.
const bundleVersion = "gateway.networking.k8s.io/bundle-version"

// definition is one custom resource definition that is wanted, next to what is there.
type definition struct {
	want, have *unstructured.Unstructured // have is nil where there is none
}

// ours tells whether weft install made what is there.
func (d definition) ours() bool {
	for _, m := range d.have.GetManagedFields() {
		if m.Manager == manager && m.Operation == metav1.ManagedFieldsOperationApply {
			return true
		}
	}
	return false
}

// lacks lists versions that are wanted and not served by what is there.
func (d definition) lacks() []string {
	have := servedVersions(d.have)
	var out []string
	for v := range servedVersions(d.want) {
		if !have[v] {
			out = append(out, v)
		}
	}
	return out
}

func servedVersions(o *unstructured.Unstructured) map[string]bool {
	out := map[string]bool{}
	versions, _, _ := unstructured.NestedSlice(o.Object, "spec", "versions")
	for _, v := range versions {
		m, _ := v.(map[string]any)
		if name, ok := m["name"].(string); ok && m["served"] == true {
			out[name] = true
		}
	}
	return out
}

// look reads what is there of each definition.
func (in *Installer) look(ctx context.Context, wanted []*unstructured.Unstructured) ([]definition, error) {
	var out []definition
	for _, w := range wanted {
		have, err := in.Cluster.Dynamic.Resource(crds).Get(ctx, w.GetName(), metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			have, err = nil, nil
		}
		if err != nil {
			return nil, in.Cluster.Explain("get", "customresourcedefinition/"+w.GetName(), err)
		}
		out = append(out, definition{w, have})
	}
	return out, nil
}

// choice is what is to be done about definitions.
type choice struct {
	apply    []*unstructured.Unstructured
	findings []*Finding
}

// chooseIstio decides by crds.mode: what is missing or ours is applied; what
// is of others stays if it serves what is needed.
func chooseIstio(defs []definition, mode string) (c choice) {
	for _, d := range defs {
		name := d.want.GetName()
		switch {
		case mode == "none" && d.have == nil:
			c.findings = append(c.findings, &Finding{SeverityError, fmt.Sprintf("definition %s is missing, and crds.mode is none", name), "kubectl apply --server-side -f deploy/crds/istio.yaml, or --set crds.mode=auto"})
		case mode == "replace", d.have == nil, mode == "auto" && d.ours():
			c.apply = append(c.apply, d.want)
		case len(d.lacks()) > 0:
			c.findings = append(c.findings, &Finding{SeverityError, fmt.Sprintf("definition %s is older and not Weft's: it does not serve %s", name, strings.Join(d.lacks(), ", ")), "upgrade what brought it, or --set crds.mode=replace"})
		}
	}
	return c
}

// chooseGateway decides for the Gateway API, whose definitions belong
// together: a bundle of others is left alone, whatever its version.
func chooseGateway(defs []definition, mode string) (c choice) {
	var missing []string
	foreign := ""
	for _, d := range defs {
		switch {
		case d.have == nil:
			missing = append(missing, d.want.GetName())
		case !d.ours():
			foreign = d.have.GetAnnotations()[bundleVersion]
			if foreign == "" {
				foreign = "an unknown version"
			}
		}
	}
	switch {
	case mode == "auto" && foreign == "":
		for _, d := range defs {
			c.apply = append(c.apply, d.want)
		}
	case len(missing) == len(defs):
		c.findings = append(c.findings, &Finding{SeverityWarning, "the Gateway API's definitions are missing, and gatewayAPI.crds is none: its kinds do nothing", "kubectl apply --server-side -f deploy/crds/gateway-api.yaml"})
	case len(missing) > 0:
		c.findings = append(c.findings, &Finding{SeverityWarning, fmt.Sprintf("the Gateway API here is of others (%s) and lacks %s: these kinds do nothing", foreign, strings.Join(missing, ", ")), "upgrade it; Weft is made for " + bundle(defs)})
	}
	return c
}

func bundle(defs []definition) string {
	for _, d := range defs {
		if v := d.want.GetAnnotations()[bundleVersion]; v != "" {
			return v
		}
	}
	return ""
}

// choose decides about all definitions of a plan.
func (in *Installer) choose(ctx context.Context, p *Plan) (choice, error) {
	istio, err := in.look(ctx, p.CRDs)
	if err != nil {
		return choice{}, err
	}
	gw, err := in.look(ctx, p.Gateway)
	if err != nil {
		return choice{}, err
	}
	a, b := chooseIstio(istio, p.text("crds", "mode")), chooseGateway(gw, p.text("gatewayAPI", "crds"))
	a.apply, a.findings = append(a.apply, b.apply...), append(a.findings, b.findings...)
	return a, nil
}

// applyCRDs applies definitions and waits until they are served.
func (in *Installer) applyCRDs(ctx context.Context, p *Plan) error {
	c, err := in.choose(ctx, p)
	if err != nil {
		return err
	}
	var names []string
	force := in.Force
	in.Force = true // those that were chosen are ours, missing, or to be replaced
	defer func() { in.Force = force }()
	for _, o := range c.apply {
		if err := in.apply(ctx, o); err != nil {
			return err
		}
		names = append(names, o.GetName())
	}
	return in.waitEstablished(ctx, names)
}

// hasGatewayAPI tells whether GatewayClasses can be made.
func (in *Installer) hasGatewayAPI(ctx context.Context) bool {
	_, err := in.Cluster.Dynamic.Resource(crds).Get(ctx, "gatewayclasses.gateway.networking.k8s.io", metav1.GetOptions{})
	return err == nil
}
