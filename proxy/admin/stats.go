package admin

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"strings"
)

// stats prints samples as "name{labels}: value". There is one set of metrics, in Prometheus' form.
func (s *Server) stats(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	var filter *regexp.Regexp
	if f := q.Get("filter"); f != "" {
		var err error
		if filter, err = regexp.Compile(f); err != nil {
			http.Error(w, "filter: "+err.Error(), http.StatusBadRequest)
			return
		}
	}
	switch q.Get("format") {
	case "prometheus":
		s.prometheus(w, r)
		return
	case "", "text", "json":
	default:
		http.Error(w, "usage: /stats?format=json|prometheus|text", http.StatusBadRequest)
		return
	}
	var b bytes.Buffer
	_ = s.set.Registry.WriteText(&b) // a buffer does not fail
	type stat struct {
		Name  string          `json:"name"`
		Value json.RawMessage `json:"value"`
	}
	var out []stat
	sc := bufio.NewScanner(&b)
	sc.Buffer(nil, 1<<20)
	for sc.Scan() {
		name, value, ok := sample(sc.Text())
		if !ok || filter != nil && !filter.MatchString(name) || q.Has("usedonly") && value == "0" {
			continue
		}
		out = append(out, stat{name, json.RawMessage(value)})
	}
	if wantsJSON(r) {
		for i := range out {
			if !json.Valid(out[i].Value) { // NaN, +Inf
				out[i].Value = json.RawMessage(`"` + string(out[i].Value) + `"`)
			}
		}
		writeJSON(w, map[string]any{"stats": out})
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	for _, x := range out {
		fmt.Fprintf(w, "%s: %s\n", x.Name, x.Value)
	}
}

// sample splits a line of the exposition; comments are none.
func sample(line string) (name, value string, ok bool) {
	if line == "" || line[0] == '#' {
		return "", "", false
	}
	i := strings.LastIndexByte(line, ' ')
	if i <= 0 {
		return "", "", false
	}
	return line[:i], line[i+1:], true
}
