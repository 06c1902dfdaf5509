package server

import (
	"context"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"

	"weft.mesh/weft/api/admin"
	"weft.mesh/weft/control/convert"
)

// Validate is the check of weft apply over everything that is there and what is about to be changed. It waits until the sources
// have said what they hold.
func (s *Server) Validate(ctx context.Context, changed []convert.Object) ([]admin.Diagnostic, error) {
	if err := s.config.wait(ctx); err != nil {
		return nil, fmt.Errorf("the configuration is not known yet: %w", err)
	}
	ds := s.config.check(changed, nil)
	if convert.HasErrors(ds) {
		s.metrics.failed.Inc()
	} else {
		s.metrics.passed.Inc()
	}
	return ds, nil
}

// Register adds metrics of others to those that 15014 shows; before Run.
func (s *Server) Register(cs ...prometheus.Collector) error {
	for _, c := range cs {
		if err := s.metrics.reg.Register(c); err != nil {
			return fmt.Errorf("control plane: metrics: %w", err)
		}
	}
	return nil
}
