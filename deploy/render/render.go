// Package render makes Kubernetes objects of the chart in deploy/chart, as
// `helm template` does: the same templates, values, functions and schema, so
// that `weft install` and Helm install the same.
//
// It promises the same text for the same values, and that values which the
// chart's schema does not know are refused by name. It refuses what the chart
// does not use of Helm: subcharts, hooks, .Files and lookup (which would ask a
// cluster). It reads only the given file system and starts nothing.
package render

import (
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
	"text/template"

	"github.com/Masterminds/sprig/v3"
	"sigs.k8s.io/yaml"
)

// Release is what templates see as .Release and .Capabilities.
type Release struct {
	Name        string // default weft
	Namespace   string // default weft-system
	Service     string // who installs, label app.kubernetes.io/managed-by; default weft
	KubeVersion string // of the cluster, such as v1.34.4; default v1.34.0
}

func (r Release) withDefaults() Release {
	for _, d := range []struct {
		v   *string
		def string
	}{{&r.Name, "weft"}, {&r.Namespace, "weft-system"}, {&r.Service, "weft"}, {&r.KubeVersion, "v1.34.0"}} {
		if *d.v == "" {
			*d.v = d.def
		}
	}
	return r
}

// File is one rendered template.
type File struct {
	Name string // such as templates/rbac.yaml
	Text string
}

// Chart is a loaded chart.
type Chart struct {
	meta      map[string]any // Chart.yaml, keys as templates spell them
	values    Values
	schema    *schema
	templates []File
	profiles  map[string]Values
}

// Load reads a chart's folder.
func Load(fsys fs.FS) (*Chart, error) {
	c := &Chart{meta: map[string]any{}, profiles: map[string]Values{}}
	var meta map[string]any
	if err := readYAML(fsys, "Chart.yaml", &meta); err != nil {
		return nil, err
	}
	for k, v := range meta {
		c.meta[strings.ToUpper(k[:1])+k[1:]] = v
	}
	if err := readYAML(fsys, "values.yaml", &c.values); err != nil {
		return nil, err
	}
	var err error
	if c.schema, err = loadSchema(fsys, "values.schema.json"); err != nil {
		return nil, err
	}
	if c.templates, err = readFiles(fsys, "templates"); err != nil {
		return nil, err
	}
	profiles, err := readFiles(fsys, "profiles")
	if err != nil {
		return nil, err
	}
	for _, f := range profiles {
		var v Values
		if err := yaml.Unmarshal([]byte(f.Text), &v); err != nil {
			return nil, fmt.Errorf("chart: %s: %w", f.Name, err)
		}
		c.profiles[strings.TrimSuffix(path.Base(f.Name), ".yaml")] = v
	}
	return c, nil
}

// SetAppVersion replaces the chart's appVersion, which is the default tag of images.
func (c *Chart) SetAppVersion(v string) { c.meta["AppVersion"] = v }

// Profiles lists the names of profiles, sorted.
func (c *Chart) Profiles() []string { return slices.Sorted(maps.Keys(c.profiles)) }

// Values are the chart's own, then the profile's, then those of each layer in
// order, checked against the schema. An empty profile is "default".
func (c *Chart) Values(profile string, layers ...Values) (Values, error) {
	if profile == "" {
		profile = "default"
	}
	p, ok := c.profiles[profile]
	if !ok {
		return nil, fmt.Errorf("profile %q: want one of %s", profile, strings.Join(c.Profiles(), ", "))
	}
	out := Merge(c.values, p)
	for _, l := range layers {
		out = Merge(out, l)
	}
	return out, c.schema.check(out)
}

// Render runs all templates. The files come in the order of their names; those
// that make nothing are left out, as are partials and NOTES.txt.
func (c *Chart) Render(r Release, v Values) ([]File, error) {
	r = r.withDefaults()
	root := template.New("weft").Option("missingkey=zero")
	root.Funcs(functions(root))
	for _, f := range c.templates {
		if _, err := root.New(f.Name).Parse(f.Text); err != nil {
			return nil, fmt.Errorf("chart: %w", err)
		}
	}
	data := map[string]any{
		"Chart":  c.meta,
		"Values": map[string]any(v),
		"Release": map[string]any{
			"Name": r.Name, "Namespace": r.Namespace, "Service": r.Service,
			"IsInstall": true, "IsUpgrade": false, "Revision": 1,
		},
		"Capabilities": map[string]any{"KubeVersion": map[string]any{"Version": r.KubeVersion, "GitVersion": r.KubeVersion}},
	}
	var out []File
	for _, f := range c.templates {
		if strings.HasPrefix(path.Base(f.Name), "_") || !strings.HasSuffix(f.Name, ".yaml") {
			continue
		}
		var b strings.Builder
		if err := root.ExecuteTemplate(&b, f.Name, data); err != nil {
			return nil, fmt.Errorf("chart: %w", err)
		}
		// A missing key of an untyped map prints so, whatever the option says; Helm takes it out too.
		text := strings.ReplaceAll(b.String(), "<no value>", "")
		if strings.TrimSpace(text) != "" {
			out = append(out, File{f.Name, text})
		}
	}
	return out, nil
}

// functions are sprig's without those that look at the machine, and Helm's own.
func functions(root *template.Template) template.FuncMap {
	f := sprig.TxtFuncMap()
	delete(f, "env")
	delete(f, "expandenv")
	f["toYaml"] = func(v any) (string, error) {
		b, err := yaml.Marshal(v)
		return strings.TrimSuffix(string(b), "\n"), err
	}
	f["required"] = func(msg string, v any) (any, error) {
		if s, ok := v.(string); v == nil || ok && s == "" {
			return nil, fmt.Errorf("%s", msg)
		}
		return v, nil
	}
	f["include"] = func(name string, data any) (string, error) {
		var b strings.Builder
		err := root.ExecuteTemplate(&b, name, data)
		return b.String(), err
	}
	return f
}

func readYAML(fsys fs.FS, name string, out any) error {
	b, err := fs.ReadFile(fsys, name)
	if err != nil {
		return fmt.Errorf("chart: %w", err)
	}
	if err := yaml.Unmarshal(b, out); err != nil {
		return fmt.Errorf("chart: %s: %w", name, err)
	}
	return nil
}

func readFiles(fsys fs.FS, dir string) ([]File, error) {
	entries, err := fs.ReadDir(fsys, dir)
	if err != nil {
		return nil, fmt.Errorf("chart: %w", err)
	}
	var out []File
	for _, e := range entries {
		b, err := fs.ReadFile(fsys, path.Join(dir, e.Name()))
		if err != nil {
			return nil, fmt.Errorf("chart: %w", err)
		}
		out = append(out, File{path.Join(dir, e.Name()), string(b)})
	}
	return out, nil
}
