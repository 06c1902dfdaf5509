package kube

import (
	"encoding/json"
	"strconv"
)

// mergePatch writes a JSON merge patch (RFC 7396).
func mergePatch(v map[string]any) ([]byte, error) { return json.Marshal(v) }

func itoa(i int) string { return strconv.Itoa(i) }
