package dns

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strings"
)

// Bounds of resolv.conf. glibc takes three servers and any number of search domains.
const (
	maxResolvConf = 64 << 10 // bytes
	maxServers    = 3
	maxSearch     = 32
)

// serverPort is where the servers of resolv.conf are asked.
const serverPort = 53

// ResolvConf is what a server needs to know of a resolv.conf(5).
type ResolvConf struct {
	Servers []netip.AddrPort // in order; may be empty
	Search  []string         // lower case, without a dot at the end
}

// ReadResolvConf reads a file.
func ReadResolvConf(name string) (ResolvConf, error) {
	f, err := os.Open(name)
	if err != nil {
		return ResolvConf{}, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxResolvConf+1))
	if err == nil && len(b) > maxResolvConf {
		err = fmt.Errorf("more than %d bytes", maxResolvConf)
	}
	if err != nil {
		return ResolvConf{}, fmt.Errorf("%s: %w", name, err)
	}
	return ParseResolvConf(string(b)), nil
}

// ParseResolvConf reads the text as resolvers do: what is not understood is passed by, of several search
// lists the last counts, and servers beyond the third are not asked.
func ParseResolvConf(text string) ResolvConf {
	var c ResolvConf
	for line := range strings.Lines(text) {
		if i := strings.IndexAny(line, "#;"); i >= 0 {
			line = line[:i]
		}
		words := strings.Fields(line)
		if len(words) < 2 {
			continue
		}
		switch words[0] {
		case "nameserver":
			if a, err := netip.ParseAddr(words[1]); err == nil && len(c.Servers) < maxServers {
				c.Servers = append(c.Servers, netip.AddrPortFrom(a.Unmap(), serverPort))
			}
		case "search", "domain":
			c.Search = nil
			for _, d := range words[1:min(len(words), maxSearch+1)] {
				if d = key(d); d != "" && len(d) <= maxNameLen {
					c.Search = append(c.Search, d)
				}
			}
		}
	}
	return c
}

// ServersIPv4 are the addresses of the servers that have one of IPv4, an error if there are none.
func (c ResolvConf) ServersIPv4() ([]netip.Addr, error) {
	var out []netip.Addr
	for _, s := range c.Servers {
		if s.Addr().Is4() {
			out = append(out, s.Addr())
		}
	}
	if len(out) == 0 {
		return nil, errors.New("no nameserver with an IPv4 address")
	}
	return out, nil
}
