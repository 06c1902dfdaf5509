package hcm

import (
	"errors"

	"weft.mesh/weft/proxy/netio"
)

func (c *connection) serveHTTP2(*netio.Conn, <-chan struct{}) error {
	return errors.New("http2: not wired yet")
}
