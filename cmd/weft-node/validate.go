package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"

	"github.com/spf13/cobra"

	"weft.mesh/weft/node/capture"
)

// exitNotCaptured is the exit code of validate in a pod whose traffic is not captured, Istio's: the node agent looks for it.
const exitNotCaptured = 126

// errNotCaptured makes the program end with exitNotCaptured.
var errNotCaptured = errors.New("this pod's traffic is not redirected to its proxy")

func validateCommand() *cobra.Command {
	var limit time.Duration
	c := &cobra.Command{
		Use:   "validate",
		Short: "Check that the node agent has redirected this pod's traffic",
		Long: "Check that the node agent has redirected this pod's traffic to its proxy: a connection that only the redirection lets arrive is made to a\n" +
			"port of this program's own. It needs no privilege. The exit code is 126 if the redirection is missing, by which the node agent knows the pod.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := context.WithTimeout(cmd.Context(), limit)
			defer cancel()
			if err := validate(ctx); err != nil {
				return err
			}
			fmt.Fprintln(cmd.ErrOrStderr(), "weft-node: this pod's traffic is redirected to its proxy")
			return nil
		},
	}
	c.Flags().DurationVar(&limit, "timeout", 5*time.Second, "how long to try")
	return c
}

// validate sends a byte to the probe's port and waits for it at the port that the rules redirect to.
func validate(ctx context.Context) error {
	here := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), capture.ProbeAnswerPort)
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp4", here.String())
	if err != nil {
		return fmt.Errorf("validate: %w", err)
	}
	arrived := make(chan error, 1)
	go func() {
		c, err := l.Accept()
		if err == nil {
			if end, ok := ctx.Deadline(); ok {
				c.SetDeadline(end)
			}
			_, err = io.ReadFull(c, make([]byte, 1))
			c.Close()
		}
		arrived <- err
	}()
	defer func() { l.Close(); <-arrived }()
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp4", netip.AddrPortFrom(capture.InboundSource, capture.ProbePort).String())
	if err == nil {
		defer c.Close()
		_, err = c.Write([]byte{'?'})
	}
	if err != nil {
		return fmt.Errorf("validate: %w: %w; is the pod of the DaemonSet weft-cni-node ready on this node, and did it start after that?", errNotCaptured, err)
	}
	select {
	case err := <-arrived:
		arrived <- nil
		return err
	case <-ctx.Done():
		return fmt.Errorf("validate: %w: what was sent to %d arrived elsewhere", errNotCaptured, capture.ProbePort)
	}
}
