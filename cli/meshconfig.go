package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"

	"weft.mesh/weft/control/convert"
	"weft.mesh/weft/model"
	"weft.mesh/weft/proxy/telemetry"
)

func (o *meshOptions) meshConfigFlag(cmd *cobra.Command) {
	cmd.Flags().StringVar(&o.meshConfig, "mesh-config", "", "file with Istio's MeshConfig; what it says wins over the flags. A field that is not supported is an error")
}

// load reads what the mesh-wide settings are, from the flags and the file.
func (o *meshOptions) load() error {
	o.mesh = model.Mesh{RegistryOnly: o.registryOnly}
	if o.accessLog {
		o.mesh.AccessLogFile = "/dev/stdout"
	}
	if o.meshConfig == "" {
		return nil
	}
	path, err := filepath.Abs(o.meshConfig)
	if err != nil {
		return err
	}
	o.meshConfig = path
	f, err := os.Open(path)
	if err != nil {
		return withHint(fmt.Errorf("--mesh-config: %w", err), "name a file with Istio's MeshConfig, like accessLogEncoding: JSON")
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxFile))
	if err != nil {
		return fmt.Errorf("--mesh-config: %w", err)
	}
	if o.mesh, err = convert.MeshConfig(string(text), o.mesh); err != nil {
		return withHint(fmt.Errorf("%s: %w", path, err), "see the table MeshConfig in docs/features.md")
	}
	if err := checkLogFormat(o.mesh); err != nil {
		return withHint(fmt.Errorf("%s: accessLogFormat: %w", path, err), "see docs/reference/access-log.md for the operators")
	}
	return nil
}

// checkLogFormat refuses a format that every proxy would refuse.
func checkLogFormat(m model.Mesh) error {
	if !m.AccessLogJSON || m.AccessLogFormat == "" {
		_, err := telemetry.ParseFormat(m.AccessLogFormat)
		return err
	}
	var object map[string]any
	if err := json.Unmarshal([]byte(m.AccessLogFormat), &object); err != nil {
		return err
	}
	return checkLogValue(object)
}

func checkLogValue(v any) error {
	switch v := v.(type) {
	case string:
		_, err := telemetry.ParseFormat(v)
		return err
	case []any:
		for _, x := range v {
			if err := checkLogValue(x); err != nil {
				return err
			}
		}
	case map[string]any:
		for _, k := range slices.Sorted(maps.Keys(v)) {
			if err := checkLogValue(v[k]); err != nil {
				return fmt.Errorf("%q: %w", k, err)
			}
		}
	}
	return nil
}
