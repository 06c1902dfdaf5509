package testbed

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"slices"
	"time"
)

// service is what the balancer reads of a Service.
type service struct {
	Metadata struct {
		Name, Namespace   string
		DeletionTimestamp string
	}
	Spec struct {
		Type           string
		LoadBalancerIP string
	}
	Status struct{ LoadBalancer struct{ Ingress []ingress } }
}

type ingress struct {
	IP string `json:"ip"`
}

// balanceForever gives Services of type LoadBalancer an address of
// [BalancerNet], as a cloud does; kube-proxy serves it on every node. It ends with the context.
func (n *node) balanceForever(ctx context.Context) error {
	api, err := NewClient(apiURL(), n.pki)
	if err != nil {
		return err
	}
	said := ""
	for {
		err := balance(ctx, api)
		if err != nil && err.Error() != said {
			said = err.Error()
			fmt.Fprintln(os.Stderr, "load balancer:", said)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(300 * time.Millisecond):
		}
	}
}

func balance(ctx context.Context, api *Client) error {
	var list struct{ Items []service }
	if err := api.Do(ctx, http.MethodGet, "/api/v1/services", "", nil, &list); err != nil {
		return err
	}
	var taken []string
	for _, s := range list.Items {
		for _, i := range s.Status.LoadBalancer.Ingress {
			taken = append(taken, i.IP)
		}
	}
	for _, s := range list.Items {
		if s.Spec.Type != "LoadBalancer" || len(s.Status.LoadBalancer.Ingress) > 0 || s.Metadata.DeletionTimestamp != "" {
			continue
		}
		ip := s.Spec.LoadBalancerIP
		if ip != "" && (!isBalancerIP(ip) || slices.Contains(taken, ip)) {
			continue // it waits, as with a cloud that cannot give the address
		}
		if ip == "" {
			free, err := freeBalancerIP(taken)
			if err != nil {
				return fmt.Errorf("service %s/%s: %w", s.Metadata.Namespace, s.Metadata.Name, err)
			}
			ip = free
		}
		taken = append(taken, ip)
		patch := map[string]any{"status": map[string]any{"loadBalancer": map[string]any{"ingress": []ingress{{ip}}}}}
		path := fmt.Sprintf("/api/v1/namespaces/%s/services/%s/status", s.Metadata.Namespace, s.Metadata.Name)
		if err := api.Do(ctx, http.MethodPatch, path, "application/merge-patch+json", patch, nil); err != nil {
			return err
		}
	}
	return nil
}
