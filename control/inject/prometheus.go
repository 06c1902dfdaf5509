package inject

import (
	"encoding/json"
	"strconv"
)

// Annotations by which a Prometheus finds the metrics of a pod.
const (
	promScrape = "prometheus.io/scrape"
	promPath   = "prometheus.io/path"
	promPort   = "prometheus.io/port"
)

// scrape is ISTIO_PROMETHEUS_ANNOTATIONS.
type scrape struct {
	Scrape string `json:"scrape"`
	Path   string `json:"path"`
	Port   string `json:"port"`
}

// prometheus says where the pod's metrics are from now on: on the proxy's port, which adds those of the
// application if it asked to be scraped. A pod that says no stays so.
func (r *request) prometheus() (env string, annotations map[string]string, err error) {
	if r.c.NoPrometheusMerge || r.pod.Annotations[annMerge] == "false" || r.gateway {
		return "", nil, nil
	}
	a := r.pod.Annotations
	if v, ok := a[promScrape]; ok && v != "true" {
		return "", nil, nil
	}
	port := strconv.Itoa(int(r.statusPort))
	annotations = map[string]string{promScrape: "true", promPath: "/stats/prometheus", promPort: port}
	if a[promScrape] == "true" && a[promPort] != port {
		b, err := json.Marshal(scrape{"true", a[promPath], a[promPort]})
		return string(b), annotations, err
	}
	return "", annotations, nil
}
