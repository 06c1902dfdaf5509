package bookinfo

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	networking "istio.io/api/networking/v1"
	security "istio.io/api/security/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"
)

// object is one document of a manifest.
type object struct {
	file            string
	metav1.TypeMeta `json:",inline"`
	Metadata        metav1.ObjectMeta `json:"metadata"`
	Spec            json.RawMessage   `json:"spec"`
	raw             []byte
}

func (o *object) String() string {
	return fmt.Sprintf("%s: %s %s/%s", o.file, o.Kind, o.Metadata.Namespace, o.Metadata.Name)
}

// manifests returns every document of every embedded file.
func manifests(t *testing.T) []*object {
	t.Helper()
	var all []*object
	err := fs.WalkDir(Manifests, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := Manifests.ReadFile(path)
		if err != nil {
			return err
		}
		docs := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(data)))
		for {
			doc, err := docs.Read()
			if errors.Is(err, io.EOF) {
				return nil
			}
			if err != nil {
				return fmt.Errorf("%s: %w", path, err)
			}
			o := &object{file: path, raw: doc}
			if err := yaml.UnmarshalStrict(doc, o); err != nil {
				return fmt.Errorf("%s: %w", path, err)
			}
			all = append(all, o)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestManifestsDecodeStrictly(t *testing.T) {
	for _, o := range manifests(t) {
		var err error
		switch o.APIVersion + "/" + o.Kind {
		case "v1/Namespace":
			err = yaml.UnmarshalStrict(o.raw, &corev1.Namespace{})
		case "v1/Service":
			err = yaml.UnmarshalStrict(o.raw, &corev1.Service{})
		case "v1/ServiceAccount":
			err = yaml.UnmarshalStrict(o.raw, &corev1.ServiceAccount{})
		case "apps/v1/Deployment":
			err = yaml.UnmarshalStrict(o.raw, &appsv1.Deployment{})
		case "networking.istio.io/v1/Gateway":
			err = decode(o.Spec, &networking.Gateway{})
		case "networking.istio.io/v1/VirtualService":
			err = decode(o.Spec, &networking.VirtualService{})
		case "networking.istio.io/v1/DestinationRule":
			err = decode(o.Spec, &networking.DestinationRule{})
		case "security.istio.io/v1/PeerAuthentication":
			err = decode(o.Spec, &security.PeerAuthentication{})
		case "security.istio.io/v1/AuthorizationPolicy":
			err = decode(o.Spec, &security.AuthorizationPolicy{})
		default:
			err = errors.New("a kind that the sample does not use")
		}
		if err != nil {
			t.Errorf("%v: %v", o, err)
		}
	}
}

// TestReferencesHold checks the names that connect the objects: a typing mistake here is a
// task that silently shows nothing.
func TestReferencesHold(t *testing.T) {
	accounts, services := map[string]bool{}, map[string]bool{}
	subsets := map[string]bool{} // "host/subset", of destination rules
	all := manifests(t)
	versions := podVersions(t, all) // "app/version"
	for _, o := range all {
		switch o.Kind {
		case "ServiceAccount":
			accounts[o.Metadata.Namespace+"/"+o.Metadata.Name] = true
		case "Service":
			services[o.Metadata.Name] = true
		case "DestinationRule":
			rule := spec(t, o, &networking.DestinationRule{})
			for _, s := range rule.Subsets {
				subsets[rule.Host+"/"+s.Name] = true
				if !versions[rule.Host+"/"+s.Labels["version"]] {
					t.Errorf("%v: subset %s selects no pods", o, s.Name)
				}
			}
		}
	}
	for _, o := range all {
		switch o.Kind {
		case "Deployment":
			d := deployment(t, o)
			if a := o.Metadata.Namespace + "/" + d.Spec.Template.Spec.ServiceAccountName; !accounts[a] {
				t.Errorf("%v: no service account %s", o, a)
			}
		case "VirtualService":
			for _, h := range spec(t, o, &networking.VirtualService{}).Http {
				for _, d := range destinations(h) {
					if !services[d.Host] {
						t.Errorf("%v: no service %s", o, d.Host)
					}
					if d.Subset != "" && !subsets[d.Host+"/"+d.Subset] {
						t.Errorf("%v: no subset %s of %s", o, d.Subset, d.Host)
					}
				}
			}
		case "AuthorizationPolicy":
			for _, r := range spec(t, o, &security.AuthorizationPolicy{}).Rules {
				for _, f := range r.From {
					for _, p := range f.Source.Principals {
						if !principalExists(p, accounts) {
							t.Errorf("%v: principal %s is no service account of the sample", o, p)
						}
					}
				}
			}
		}
	}
}

func principalExists(principal string, accounts map[string]bool) bool {
	for a := range accounts {
		ns, name, _ := bytes.Cut([]byte(a), []byte("/"))
		if len(ns) == 0 {
			ns = []byte("default")
		}
		if principal == fmt.Sprintf("cluster.local/ns/%s/sa/%s", ns, name) {
			return true
		}
	}
	return false
}

func podVersions(t *testing.T, all []*object) map[string]bool {
	t.Helper()
	out := map[string]bool{}
	for _, o := range all {
		if o.Kind == "Deployment" {
			l := deployment(t, o).Spec.Template.Labels
			out[l["app"]+"/"+l["version"]] = true
		}
	}
	return out
}

func destinations(h *networking.HTTPRoute) []*networking.Destination {
	var out []*networking.Destination
	for _, r := range h.Route {
		out = append(out, r.Destination)
	}
	if h.Mirror != nil {
		out = append(out, h.Mirror)
	}
	return out
}

func TestDeploymentsAreWhatTheDocumentationNames(t *testing.T) {
	want := map[string]string{ // name → account
		"details-v1": "bookinfo-details", "ratings-v1": "bookinfo-ratings", "productpage-v1": "bookinfo-productpage",
		"reviews-v1": "bookinfo-reviews", "reviews-v2": "bookinfo-reviews", "reviews-v3": "bookinfo-reviews",
	}
	got := map[string]string{}
	for _, o := range manifests(t) {
		if o.file != "platform/bookinfo.yaml" || o.Kind != "Deployment" {
			continue
		}
		d := deployment(t, o)
		got[o.Metadata.Name] = d.Spec.Template.Spec.ServiceAccountName
		app, version := d.Spec.Template.Labels["app"], d.Spec.Template.Labels["version"]
		if app+"-"+version != o.Metadata.Name {
			t.Errorf("%v: labels app %q, version %q do not make the name", o, app, version)
		}
		c := d.Spec.Template.Spec.Containers[0]
		if !slices.Equal(c.Command, []string{"bookinfo", app}) || c.Ports[0].ContainerPort != 9080 {
			t.Errorf("%v: command %q, port %d", o, c.Command, c.Ports[0].ContainerPort)
		}
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("deployments %v, want %v", got, want)
	}
}

func deployment(t *testing.T, o *object) *appsv1.Deployment {
	t.Helper()
	d := &appsv1.Deployment{}
	if err := yaml.UnmarshalStrict(o.raw, d); err != nil {
		t.Fatalf("%v: %v", o, err)
	}
	return d
}

func spec[M proto.Message](t *testing.T, o *object, m M) M {
	t.Helper()
	if err := decode(o.Spec, m); err != nil {
		t.Fatalf("%v: %v", o, err)
	}
	return m
}

// decode decodes as Istio does, which takes durations such as 3m, and refuses what that skips: unknown fields.
func decode(from json.RawMessage, into proto.Message) error {
	if err := json.Unmarshal(from, into); err != nil {
		return err
	}
	again, err := protojson.MarshalOptions{EmitUnpopulated: true}.Marshal(into)
	if err != nil {
		return err
	}
	var before, after any
	if err := errors.Join(json.Unmarshal(from, &before), json.Unmarshal(again, &after)); err != nil {
		return err
	}
	return lost("spec", before, after)
}

// lost returns an error for the fields of before that after has not.
func lost(path string, before, after any) error {
	switch before := before.(type) {
	case map[string]any:
		after, _ := after.(map[string]any)
		var errs []error
		for k, v := range before {
			if w, ok := after[k]; ok {
				errs = append(errs, lost(path+"."+k, v, w))
			} else {
				errs = append(errs, fmt.Errorf("unknown field %s.%s", path, k))
			}
		}
		return errors.Join(errs...)
	case []any:
		after, _ := after.([]any)
		if len(after) != len(before) {
			return fmt.Errorf("%s: %d items became %d", path, len(before), len(after))
		}
		var errs []error
		for i := range before {
			errs = append(errs, lost(fmt.Sprintf("%s[%d]", path, i), before[i], after[i]))
		}
		return errors.Join(errs...)
	}
	return nil
}

func TestDecodeRefusesUnknownFields(t *testing.T) {
	for _, bad := range []string{`{"host":"a","colour":"red"}`, `{"host":"a","subsets":[{"name":"v1","label":{}}]}`} {
		if err := decode(json.RawMessage(bad), &networking.DestinationRule{}); err == nil {
			t.Errorf("decode(%s) took an unknown field", bad)
		}
	}
}
