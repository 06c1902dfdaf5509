package client

import (
	"context"
	"errors"
	"io"
	"net/url"
	"strconv"

	"weft.mesh/weft/api/admin"
)

// Pods lists the pods, sorted by namespace and name.
func (c *Client) Pods(ctx context.Context) ([]admin.Pod, error) {
	var list admin.PodList
	err := c.runtime.get(ctx, admin.PathPods, nil, &list)
	return list.Items, err
}

// Rollouts of the Deployments that the runtime knows.
func (c *Client) Rollouts(ctx context.Context) ([]admin.Rollout, error) {
	var list admin.PodList
	err := c.runtime.get(ctx, admin.PathPods, nil, &list)
	return list.Rollouts, err
}

// AllLines of a log that are kept.
const AllLines = -1

// LogOptions say which output to read.
type LogOptions struct {
	Namespace string // default "default"
	Pod       string // or deployment/NAME, or admin.PodControlPlane
	Container string // default the first program; the sidecar is "istio-proxy"
	Follow    bool
	Tail      int // last lines; 0 is none, AllLines all
}

// Logs writes a container's output to w until it ends. That ctx or the mesh
// ends meanwhile is no error.
func (c *Client) Logs(ctx context.Context, o LogOptions, w io.Writer) error {
	q := url.Values{"namespace": {o.Namespace}, "pod": {o.Pod}, "container": {o.Container}, "follow": {strconv.FormatBool(o.Follow)}}
	if o.Tail >= 0 {
		q.Set("tail", strconv.Itoa(o.Tail))
	}
	body, err := c.runtime.stream(ctx, admin.PathLogs, q)
	if err != nil {
		return err
	}
	defer body.Close()
	_, err = io.Copy(w, body)
	if ctx.Err() != nil || errors.Is(err, io.ErrUnexpectedEOF) {
		return nil
	}
	return err
}

// Restart restarts a Deployment's pods one by one, or one container of a pod.
func (c *Client) Restart(ctx context.Context, r admin.RestartRequest) error {
	return c.runtime.post(ctx, admin.PathRestart, r, nil)
}

// Signal sends a signal to a container's program.
func (c *Client) Signal(ctx context.Context, r admin.SignalRequest) error {
	return c.runtime.post(ctx, admin.PathSignal, r, nil)
}

// Stop asks the mesh to end and returns at once; local.AwaitEnd waits for it.
func (c *Client) Stop(ctx context.Context) error {
	return c.runtime.post(ctx, admin.PathStop, struct{}{}, nil)
}
