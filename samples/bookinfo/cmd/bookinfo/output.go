package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

func (o *clientOptions) print(w io.Writer, results []result) error {
	switch o.output {
	case "json":
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		return enc.Encode(summarise(results, true))
	case "summary":
		_, err := io.WriteString(w, summarise(results, false).String())
		return err
	}
	for _, r := range results {
		if err := o.printOne(w, r); err != nil {
			return err
		}
	}
	return nil
}

func (o *clientOptions) printOne(w io.Writer, r result) error {
	if o.output == "status" {
		_, err := fmt.Fprintf(w, "%03d\n", r.Status) // 000 without an answer, as curl writes it
		return err
	}
	if r.Status == 0 {
		return nil // the error is on stderr
	}
	out := r.Body
	if o.include {
		head := fmt.Sprintf("%s %d %s\n", r.proto, r.Status, http.StatusText(r.Status))
		for _, name := range sortedKeys(r.Headers) {
			head += name + ": " + r.Headers[name] + "\n"
		}
		out = head + "\n" + out
	}
	if out != "" && !strings.HasSuffix(out, "\n") {
		out += "\n"
	}
	_, err := io.WriteString(w, out)
	return err
}

// summary is all requests together.
type summary struct {
	Requests int            `json:"requests"`
	Answered int            `json:"answered"`
	Statuses map[string]int `json:"statuses"`
	Errors   map[string]int `json:"errors"`
	P50      float64        `json:"p50_milliseconds"`
	P99      float64        `json:"p99_milliseconds"`
	Max      float64        `json:"max_milliseconds"`
	Results  []result       `json:"results,omitempty"`
}

func summarise(results []result, all bool) *summary {
	s := &summary{Requests: len(results), Statuses: map[string]int{}, Errors: map[string]int{}}
	times := make([]float64, len(results))
	for i, r := range results {
		times[i] = r.Millis
		if r.Error != "" {
			s.Errors[r.Cause]++
		}
		if r.Status != 0 {
			s.Answered++
			s.Statuses[strconv.Itoa(r.Status)]++
		}
	}
	slices.Sort(times)
	s.P50, s.P99, s.Max = quantile(times, 0.5), quantile(times, 0.99), quantile(times, 1)
	if all {
		s.Results = results
	}
	return s
}

// quantile returns the smallest value that at least the share q of sorted does not exceed.
func quantile(sorted []float64, q float64) float64 {
	return sorted[max(int(math.Ceil(q*float64(len(sorted))))-1, 0)]
}

func (s *summary) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d requests, %d answered; milliseconds: p50 %.1f, p99 %.1f, max %.1f\n", s.Requests, s.Answered, s.P50, s.P99, s.Max)
	for _, code := range sortedKeys(s.Statuses) {
		fmt.Fprintf(&b, "%6d × %s\n", s.Statuses[code], code)
	}
	for _, e := range sortedKeys(s.Errors) {
		fmt.Fprintf(&b, "%6d × %s\n", s.Errors[e], e)
	}
	return b.String()
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
