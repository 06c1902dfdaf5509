package install

import (
	"context"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	sigsyaml "sigs.k8s.io/yaml"

	"weft.mesh/weft/deploy/render"
)

// Recorded is what an installed revision was asked to be.
type Recorded struct {
	Profile, Version string
	Values           render.Values
	Helm             string // the release, if Helm installed it
}

// Installed is [Installer.Recorded], or what Helm noted of a revision that it installed; nil where there is nothing.
func (in *Installer) Installed(ctx context.Context, ns, revision string) (*Recorded, error) {
	r, err := in.Recorded(ctx, ns, revision)
	if r != nil || err != nil {
		return r, err
	}
	if ns == "" {
		ns = Namespace
	}
	if revision == "" {
		revision = "default"
	}
	return in.byHelm(ctx, ns, revision)
}

// Recorded reads what weft install noted of a revision; nil where there is nothing.
func (in *Installer) Recorded(ctx context.Context, ns, revision string) (*Recorded, error) {
	if ns == "" {
		ns = Namespace
	}
	if revision == "" {
		revision = "default"
	}
	name := recordName(revision)
	o, err := in.Cluster.Dynamic.Resource(configMaps).Namespace(ns).Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, in.Cluster.Explain("get", "configmap/"+name, err)
	}
	data, _ := o.Object["data"].(map[string]any)
	text := func(k string) string { s, _ := data[k].(string); return s }
	r := &Recorded{Profile: text("profile"), Version: text("version")}
	if err := sigsyaml.Unmarshal([]byte(text("values")), &r.Values); err != nil {
		return nil, fmt.Errorf("configmap/%s: values: %w", name, err)
	}
	return r, nil
}

// Check is one thing that Verify looked at.
type Check struct {
	What string `json:"what"`
	OK   bool   `json:"ok"`
	Note string `json:"note,omitempty"` // what is wrong
}

// Verify compares a cluster with a plan: is everything there, served and ready? The note that weft install makes is not looked for:
// who verifies has read it, or Helm's.
func (in *Installer) Verify(ctx context.Context, p *Plan) ([]Check, error) {
	in.withDefaults()
	defs, err := in.look(ctx, p.CRDs)
	if err != nil {
		return nil, err
	}
	if p.text("gatewayAPI", "crds") == "auto" {
		more, err := in.look(ctx, p.Gateway)
		if err != nil {
			return nil, err
		}
		defs = append(defs, more...)
	}
	var out []Check
	for _, d := range defs {
		out = append(out, d.check())
	}
	for _, o := range p.Objects {
		if o.GetKind() == "ConfigMap" && o.GetName() == recordName(p.Revision) {
			continue
		}
		k, _, err := kindOf(o)
		if err != nil {
			return nil, err
		}
		c := Check{What: nameOf(o)}
		now, err := in.client(k, o.GetNamespace()).Get(ctx, o.GetName(), metav1.GetOptions{})
		switch {
		case apierrors.IsNotFound(err):
			c.Note = "missing"
		case err != nil:
			return out, in.Cluster.Explain("get", nameOf(o), err)
		case k.gvr == deployments, k.gvr == daemonSets:
			c.Note = behind(now)
			if c.Note != "" {
				if why := in.trouble(ctx, now); why != "" {
					c.Note += "; " + why
				}
			}
		case k.webhook:
			c.Note = withoutCA(now)
		case k.gvr == namespaces && now.GetDeletionTimestamp() != nil:
			c.Note = "is being deleted"
		}
		c.OK = c.Note == ""
		out = append(out, c)
	}
	return out, nil
}

func (d definition) check() Check {
	c := Check{What: "definition " + d.want.GetName()}
	switch {
	case d.have == nil:
		c.Note = "missing"
	case len(d.lacks()) > 0:
		c.Note = fmt.Sprintf("does not serve %v", d.lacks())
	default:
		if ok, why := condition(d.have, "Established"); !ok {
			c.Note = "not served: " + why
		}
	}
	c.OK = c.Note == ""
	return c
}
