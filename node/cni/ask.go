package cni

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"time"
)

// maxMessage bounds a question and an answer: a pod's annotations are at most 256 KiB.
const maxMessage = 1 << 20

// dialPause is between two attempts to reach an agent that is being replaced.
const dialPause = 200 * time.Millisecond

// Ask asks the agent at a Unix socket what is to become of a pod. An agent that
// is being replaced is waited for until ctx ends.
func Ask(ctx context.Context, socket string, p Pod) (Answer, error) {
	conn, err := dial(ctx, socket)
	if err != nil {
		return Answer{}, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })()
	if err := json.NewEncoder(conn).Encode(p); err != nil {
		return Answer{}, fmt.Errorf("ask the node agent at %s: %w", socket, err)
	}
	var a Answer
	if err := readLine(conn, &a); err != nil {
		if ctx.Err() != nil {
			err = fmt.Errorf("no answer in time: %w", ctx.Err())
		}
		return Answer{}, fmt.Errorf("ask the node agent at %s: %w", socket, err)
	}
	if a.Error != "" {
		return Answer{}, fmt.Errorf("the node agent says: %s", a.Error)
	}
	return a, nil
}

func dial(ctx context.Context, socket string) (net.Conn, error) {
	var d net.Dialer
	for {
		conn, err := d.DialContext(ctx, "unix", socket)
		if err == nil {
			return conn, nil
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("the node agent does not answer at %s (is the pod of the DaemonSet weft-cni-node ready on this node?): %w", socket, err)
		case <-time.After(dialPause):
		}
	}
}

// readLine reads one message, and nothing that is longer than it may be.
func readLine(r io.Reader, v any) error {
	line, err := bufio.NewReader(io.LimitReader(r, maxMessage+1)).ReadBytes('\n')
	switch {
	case len(line) > maxMessage:
		return fmt.Errorf("a message of more than %d bytes", maxMessage)
	case errors.Is(err, io.EOF):
		return fmt.Errorf("the connection ended: %w", io.ErrUnexpectedEOF)
	case err != nil:
		return err
	}
	return json.Unmarshal(line, v)
}

// Listen makes the agent's socket, for its user only, in a folder that becomes that user's, and takes the place of one that an agent before left.
func Listen(path string) (net.Listener, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("node agent: socket: %w", err)
	}
	// The folder first: a socket that anybody can reach for a moment would be enough.
	if err := os.Chmod(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("node agent: socket: %w", err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("node agent: socket: %w", err)
	}
	// An agent that ends late must not take the socket of the next one with it.
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	if err := os.Chmod(path, 0o600); err != nil {
		l.Close()
		return nil, fmt.Errorf("node agent: socket: %w", err)
	}
	return l, nil
}
