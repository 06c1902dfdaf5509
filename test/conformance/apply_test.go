package conformance

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"testing"

	"weft.mesh/weft/api/admin"
)

// apply stores YAML and waits for the World that holds it.
func apply(t *testing.T, cp *liveControl, yaml string) {
	t.Helper()
	b, err := json.Marshal(admin.ApplyRequest{Files: []admin.File{{Name: "test.yaml", Content: yaml}}})
	if err != nil {
		t.Fatal(err)
	}
	resp, err := cp.http.Post("http://weft"+admin.PathApply, "application/json", bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("apply: %d: %s", resp.StatusCode, body)
	}
}
