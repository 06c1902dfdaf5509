package main

import (
	"bytes"
	"encoding/csv"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// counter reads how many requests a proxy counted itself.
type counter func(c *conf) (int64, error)

// counted sums each process' own count of requests; nil if the program keeps none.
func (r *running) counted() ([]int64, error) {
	if r.peer.count == nil || r.kind == kindTCP {
		return nil, nil
	}
	var out []int64
	for _, c := range r.confs {
		n, err := r.peer.count(c)
		if err != nil {
			return nil, fmt.Errorf("%s: its metrics: %w", r.peer.name, err)
		}
		out = append(out, n)
	}
	return out, nil
}

// checkCounted fails if a process' metrics lack requests that were answered: what counts nothing costs less.
func (r *running) checkCounted(before []int64, requests int) error {
	for deadline := time.Now().Add(3 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		after, err := r.counted()
		if err != nil {
			return err
		}
		missing := -1
		for i := range after {
			if after[i]-before[i] < int64(requests) {
				missing = i
			}
		}
		if missing < 0 {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s: metrics are missing: %d requests were answered, end %q counted %d", r.peer.name, requests, r.confs[missing].Role, after[missing]-before[missing])
		}
	}
}

func page(url string) ([]byte, error) {
	resp, err := client.Get(url)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != 200 {
		err = fmt.Errorf("%s: %s", url, resp.Status)
	}
	return b, err
}

// sumSeries adds up the values of a Prometheus page's lines that have all the words.
func sumSeries(text []byte, name string, words ...string) (sum int64) {
lines:
	for line := range bytes.Lines(text) {
		if !bytes.HasPrefix(line, []byte(name)) {
			continue
		}
		for _, w := range words {
			if !bytes.Contains(line, []byte(w)) {
				continue lines
			}
		}
		f := bytes.Fields(line)
		v, _ := strconv.ParseFloat(string(f[len(f)-1]), 64)
		sum += int64(v)
	}
	return sum
}

// countWeft wants Istio's standard metric with who spoke to whom.
func countWeft(c *conf) (int64, error) {
	text, err := page(fmt.Sprintf("http://%s:%d/stats/prometheus", loopback, c.Admin))
	if err != nil {
		return 0, err
	}
	words := []string{`response_code="200"`, `reporter="source"`, `destination_service="` + benchHost + `"`, `source_workload="` + clientAccount}
	switch c.Role {
	case "a":
		words = append(words, `connection_security_policy="unknown"`, `destination_principal="`+spiffeID(serverAccount)+`"`)
	case "b":
		words[1] = `reporter="destination"`
		words = append(words[:3], `connection_security_policy="mutual_tls"`, `source_principal="`+spiffeID(clientAccount)+`"`)
	}
	return sumSeries(text, "istio_requests_total{", words...), nil
}

func countEnvoy(c *conf) (int64, error) {
	text, err := page(fmt.Sprintf("http://%s:%d/stats?filter=^cluster.out.upstream_rq_total$", loopback, c.Admin))
	if err != nil {
		return 0, err
	}
	_, v, _ := strings.Cut(strings.TrimSpace(string(text)), ": ")
	return strconv.ParseInt(v, 10, 64)
}

// countCaddy names a request after the first handler of its route.
func countCaddy(c *conf) (int64, error) {
	text, err := page(fmt.Sprintf("http://%s:%d/metrics", loopback, c.Admin))
	return sumSeries(text, "caddy_http_request_duration_seconds_count{", `code="200"`), err
}

// countHAProxy asks the statistics socket.
func countHAProxy(c *conf) (int64, error) {
	s, err := net.DialTimeout("unix", filepath.Join(c.Dir, fmt.Sprintf("haproxy-%d.sock", c.Listen)), dialTimeout)
	if err != nil {
		return 0, err
	}
	defer s.Close()
	s.SetDeadline(time.Now().Add(answerTimeout))
	if _, err := s.Write([]byte("show stat\n")); err != nil {
		return 0, err
	}
	text, err := io.ReadAll(s)
	if err != nil {
		return 0, err
	}
	r := csv.NewReader(bytes.NewReader(bytes.TrimPrefix(text, []byte("# "))))
	r.FieldsPerRecord = -1
	rows, err := r.ReadAll()
	if err != nil || len(rows) == 0 {
		return 0, fmt.Errorf("show stat: %v, %d rows", err, len(rows))
	}
	for i, name := range rows[0] {
		for _, row := range rows[1:] {
			if name == "req_tot" && len(row) > i && row[0] == "in" && row[1] == "FRONTEND" {
				return strconv.ParseInt(row[i], 10, 64)
			}
		}
	}
	return 0, fmt.Errorf("show stat has no req_tot of the frontend")
}
