package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"

	"golang.org/x/sys/unix"

	"weft.mesh/weft/api/admin"
)

// Exec runs a command in a pod with the given files as its stdin, stdout and
// stderr, and returns its exit code. The end of ctx ends the command.
func (c *Client) Exec(ctx context.Context, r admin.ExecRequest, stdin, stdout, stderr *os.File) (int, error) {
	const call = "exec"
	conn, err := c.exec.dial(ctx)
	if err != nil {
		return -1, c.exec.fail(call, err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	line, err := json.Marshal(r)
	if err != nil {
		return -1, c.exec.fail(call, err)
	}
	line = append(line, '\n')
	rights := unix.UnixRights(int(stdin.Fd()), int(stdout.Fd()), int(stderr.Fd()))
	n, _, err := conn.(*net.UnixConn).WriteMsgUnix(line, rights, nil)
	if err == nil && n < len(line) {
		_, err = conn.Write(line[n:])
	}
	if err != nil {
		return -1, c.exec.fail(call, fmt.Errorf("send the command: %w", err))
	}
	var res admin.ExecResult
	if err := json.NewDecoder(io.LimitReader(conn, maxError)).Decode(&res); err != nil {
		if ctx.Err() != nil {
			return -1, ctx.Err()
		}
		return -1, c.exec.fail(call, fmt.Errorf("the mesh ended before the command: %w", err))
	}
	if res.Error != "" {
		return res.ExitCode, errors.New(res.Error)
	}
	return res.ExitCode, nil
}
