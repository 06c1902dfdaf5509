package install

import (
	"context"
	"fmt"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"

	"weft.mesh/weft/deploy/render"
)

// Tag is a name that stands for a revision.
type Tag struct {
	Name       string   `json:"name"`
	Revision   string   `json:"revision"`
	Namespaces []string `json:"namespaces"` // that use it
}

// Tags lists all tags, sorted.
func (in *Installer) Tags(ctx context.Context) ([]Tag, error) {
	list, err := in.Cluster.Dynamic.Resource(mutating).List(ctx, metav1.ListOptions{LabelSelector: labelTag + "," + labelManagedBy + "=" + manager})
	if err != nil {
		return nil, in.Cluster.Explain("list", groupResource(kind{gvr: mutating}), err)
	}
	var out []Tag
	for i := range list.Items {
		l := list.Items[i].GetLabels()
		t := Tag{Name: l[labelTag], Revision: l[labelRevision]}
		if t.Namespaces, err = in.users(ctx, t.Name); err != nil {
			return nil, err
		}
		out = append(out, t)
	}
	slices.SortFunc(out, func(a, b Tag) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

// users lists namespaces whose label names a tag or revision.
func (in *Installer) users(ctx context.Context, name string) ([]string, error) {
	selectors := []string{labels.Set{"istio.io/rev": name}.String()}
	if name == "default" {
		selectors = append(selectors, "istio-injection=enabled")
	}
	out := []string{}
	for _, s := range selectors {
		list, err := in.Cluster.Dynamic.Resource(namespaces).List(ctx, metav1.ListOptions{LabelSelector: s})
		if err != nil {
			return nil, in.Cluster.Explain("list", "namespaces", err)
		}
		for _, o := range list.Items {
			out = append(out, o.GetName())
		}
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

// SetTag points a tag at a revision. One that points elsewhere is moved only with overwrite. The tag default brings what asks the revision
// about pods and objects that name none.
func (in *Installer) SetTag(ctx context.Context, c Config, tag, revision string, overwrite bool) error {
	in.withDefaults()
	if c.Namespace == "" {
		c.Namespace = Namespace
	}
	if _, err := in.Cluster.Dynamic.Resource(deployments).Namespace(c.Namespace).Get(ctx, "weft"+suffix(revision), metav1.GetOptions{}); apierrors.IsNotFound(err) {
		return &Finding{SeverityError, fmt.Sprintf("revision %s is not installed in %s", revision, c.Namespace), "weft install --revision " + revision}
	} else if err != nil {
		return in.Cluster.Explain("get", "deployment/weft"+suffix(revision), err)
	}
	have, err := in.Tags(ctx)
	if err != nil {
		return err
	}
	for _, t := range have {
		if t.Name == tag && t.Revision != revision && !overwrite {
			return &Finding{SeverityError, fmt.Sprintf("tag %s stands for revision %s", tag, t.Revision), "--overwrite moves it"}
		}
	}
	if c, err = in.like(ctx, c, revision); err != nil {
		return err
	}
	objs, err := tagObjects(c, tag, revision)
	if err != nil {
		return err
	}
	for _, o := range objs {
		if o.GetKind() == "ClusterRoleBinding" {
			in.Progress("tag " + tag + " → revision " + revision)
		}
		if err := in.apply(ctx, o); err != nil {
			return err
		}
	}
	for _, o := range objs {
		if k, _, _ := kindOf(o); k.webhook && in.Wait {
			if err := in.waitForCA(ctx, k.gvr, o); err != nil {
				return err
			}
		}
	}
	if tag == "default" && revision != "default" {
		return in.yieldDefault(ctx, c)
	}
	return nil
}

// like is c with the profile and values that a revision was installed with: a tag's webhooks are as those of its revision.
func (in *Installer) like(ctx context.Context, c Config, revision string) (Config, error) {
	was, err := in.Installed(ctx, c.Namespace, revision)
	if err != nil || was == nil {
		return c, err
	}
	c.Profile, c.Values = was.Profile, render.Merge(was.Values, c.Values)
	return c, nil
}

// tagObjects are what the chart makes for a tag.
func tagObjects(c Config, tag, revision string) ([]*unstructured.Unstructured, error) {
	c.Values = render.Merge(c.Values, render.Values{"revision": revision, "revisionTags": []any{tag}})
	p, err := NewPlan(c)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(p.Objects, func(o *unstructured.Unstructured) bool { return o.GetLabels()[labelTag] != tag }), nil
}

// yieldDefault takes istio-injection=enabled from the revision default, where
// that is installed: the tag has it now.
func (in *Installer) yieldDefault(ctx context.Context, c Config) error {
	was, err := in.Recorded(ctx, c.Namespace, "default")
	if err != nil || was == nil {
		return err
	}
	c.Profile, c.Version = was.Profile, was.Version
	c.Values = render.Merge(was.Values, render.Values{"injection": map[string]any{"default": false}})
	p, err := NewPlan(c)
	if err != nil {
		return err
	}
	for _, o := range p.Objects {
		if k, _, _ := kindOf(o); k.webhook {
			if err := in.apply(ctx, o); err != nil {
				return err
			}
		}
	}
	return nil
}

// DefaultElsewhere is the revision, other than the one named default, that the tag default stands for.
func (in *Installer) DefaultElsewhere(ctx context.Context) (string, error) {
	o, err := in.Cluster.Dynamic.Resource(mutating).Get(ctx, "weft-revision-tag-default", metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return "", nil
	}
	if err != nil {
		return "", in.Cluster.Explain("get", "mutatingwebhookconfiguration/weft-revision-tag-default", err)
	}
	if rev := o.GetLabels()[labelRevision]; rev != "default" {
		return rev, nil
	}
	return "", nil
}

// RemoveTag deletes a tag. One that namespaces use stays, unless forced: their
// pods would start without a sidecar.
func (in *Installer) RemoveTag(ctx context.Context, ns, tag string, force bool) error {
	in.withDefaults()
	have, err := in.Tags(ctx)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(have, func(t Tag) bool { return t.Name == tag })
	if i < 0 {
		return &Finding{SeverityError, fmt.Sprintf("there is no tag %s", tag), "weft tag list"}
	}
	if n := have[i].Namespaces; len(n) > 0 && !force {
		return &Finding{SeverityError, fmt.Sprintf("tag %s is used by namespaces %s: their pods would start without a sidecar", tag, strings.Join(n, ", ")), "label them otherwise, or use --force"}
	}
	own, err := in.own(ctx, ns, labels.Set{labelTag: tag})
	if err != nil {
		return err
	}
	for _, o := range own {
		if err := in.delete(ctx, o); err != nil {
			return err
		}
	}
	return nil
}
