package install

import (
	"compress/gzip"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"weft.mesh/weft/deploy/render"
)

// maxRelease bounds what Helm noted of a release, unpacked; a Secret has at most a megabyte.
const maxRelease = 64 << 20

// byHelm reads what Helm noted of a revision that it installed; nil if it did not. Its storage is a Secret for each version of
// a release (Helm's default driver), whose text is JSON, gzip and base64.
func (in *Installer) byHelm(ctx context.Context, ns, revision string) (*Recorded, error) {
	name := "weft" + suffix(revision)
	o, err := in.Cluster.Dynamic.Resource(deployments).Namespace(ns).Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, in.Cluster.Explain("get", "deployment/"+name, err)
	}
	release := o.GetAnnotations()["meta.helm.sh/release-name"]
	if o.GetLabels()[labelManagedBy] != "Helm" || release == "" {
		return nil, nil
	}
	list, err := in.Cluster.Dynamic.Resource(res("", "v1", "secrets")).Namespace(ns).List(ctx, metav1.ListOptions{LabelSelector: "owner=helm,status=deployed,name=" + release})
	if err != nil {
		return nil, in.Cluster.Explain("list", "secrets", err)
	}
	newest := newestRelease(list.Items)
	if newest == nil {
		return nil, &Finding{SeverityError, fmt.Sprintf("deployment/%s is of the Helm release %s, of which there is no Secret in %s", name, release, ns), "helm status " + release + " -n " + ns}
	}
	text, _, _ := unstructured.NestedString(newest.Object, "data", "release")
	r, err := readRelease(text)
	if err != nil {
		return nil, fmt.Errorf("secret/%s: %w", newest.GetName(), err)
	}
	r.Helm = release
	return r, nil
}

// newestRelease is the last version of a release.
func newestRelease(all []unstructured.Unstructured) (newest *unstructured.Unstructured) {
	last := -1
	for i := range all {
		if n, err := strconv.Atoi(all[i].GetLabels()["version"]); err == nil && n > last {
			newest, last = &all[i], n
		}
	}
	return newest
}

// readRelease unpacks the data of a Secret of Helm's.
func readRelease(text string) (*Recorded, error) {
	inner, err := base64.StdEncoding.DecodeString(text) // the API server's
	if err != nil {
		return nil, err
	}
	z, err := gzip.NewReader(base64.NewDecoder(base64.StdEncoding, strings.NewReader(string(inner)))) // Helm's
	if err != nil {
		return nil, err
	}
	var release struct {
		Config render.Values
		Chart  struct{ Metadata struct{ AppVersion string } }
	}
	if err := json.NewDecoder(io.LimitReader(z, maxRelease)).Decode(&release); err != nil {
		return nil, err
	}
	return &Recorded{Version: release.Chart.Metadata.AppVersion, Values: release.Config}, nil
}
