package route

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"sort"
	"strings"
)

// hostIndex finds the virtual host of an authority: exact, then the longest
// suffix ("*.example.com"), then the longest prefix ("example.*"), then "*".
type hostIndex struct {
	exact    map[string]*VirtualHost
	suffixes []wildcards // longest first
	prefixes []wildcards // longest first
	any      *VirtualHost
}

// wildcards are all wildcard domains whose fixed part has one length.
type wildcards struct {
	length int
	hosts  map[string]*VirtualHost
}

// maxAuthority bounds what is matched (RFC 1035: 255 bytes of name, and a port).
const maxAuthority = 320

func (x *hostIndex) add(domain string, v *VirtualHost) error {
	d := strings.ToLower(domain)
	star := strings.IndexByte(d, '*')
	switch {
	case d == "":
		return fmt.Errorf("virtual host %q: empty domain", v.Name)
	case len(d) > maxAuthority:
		return fmt.Errorf("virtual host %q: domain of %d bytes: at most %d", v.Name, len(d), maxAuthority)
	case d == "*":
		if x.any != nil {
			return duplicate(domain, v, x.any)
		}
		x.any = v
		return nil
	case star < 0:
		return put(x.exact, d, domain, v)
	case strings.Count(d, "*") > 1 || (star != 0 && star != len(d)-1):
		return fmt.Errorf("virtual host %q: domain %q: one * only, at the beginning or the end", v.Name, domain)
	case star == 0:
		return put(level(&x.suffixes, len(d)-1), d[1:], domain, v)
	default:
		return put(level(&x.prefixes, len(d)-1), d[:len(d)-1], domain, v)
	}
}

func level(l *[]wildcards, n int) map[string]*VirtualHost {
	i := sort.Search(len(*l), func(i int) bool { return (*l)[i].length <= n })
	if i < len(*l) && (*l)[i].length == n {
		return (*l)[i].hosts
	}
	*l = append(*l, wildcards{})
	copy((*l)[i+1:], (*l)[i:])
	(*l)[i] = wildcards{n, map[string]*VirtualHost{}}
	return (*l)[i].hosts
}

func put(m map[string]*VirtualHost, key, domain string, v *VirtualHost) error {
	if old := m[key]; old != nil {
		return duplicate(domain, v, old)
	}
	m[key] = v
	return nil
}

func duplicate(domain string, a, b *VirtualHost) error {
	return fmt.Errorf("virtual host %q: domain %q: is also in virtual host %q; every domain must be unique", a.Name, domain, b.Name)
}

// noteAddress notes a domain that is an IP address.
func (t *Table) noteAddress(domain string, v *VirtualHost) {
	if !t.ByAddress {
		return
	}
	if a, err := netip.ParseAddr(strings.Trim(domain, "[]")); err == nil {
		if t.addresses == nil {
			t.addresses = map[netip.Addr]*VirtualHost{}
		}
		t.addresses[a.Unmap()] = v
	}
}

// HostAt finds the virtual host for an authority on a connection to dst.
func (t *Table) HostAt(authority []byte, dst netip.Addr) *VirtualHost {
	v := t.Host(authority)
	if t.ByAddress && v == t.index.any {
		if at := t.addresses[dst.Unmap()]; at != nil {
			return at
		}
	}
	return v
}

// Host finds the virtual host for an authority in any case, nil if there is
// none. The port takes part as written, unless the table ignores ports.
func (t *Table) Host(authority []byte) *VirtualHost {
	if t.IgnorePort {
		authority = trimPort(authority)
	}
	if len(authority) > maxAuthority {
		return t.index.any
	}
	if !hasUpper(authority) {
		return t.index.find(authority)
	}
	return t.hostFolded(authority)
}

// hasUpper tells whether there may be a letter in upper case. It looks at eight bytes at a time.
func hasUpper(b []byte) bool {
	i := 0
	for ; i <= len(b)-8; i += 8 {
		x := binary.LittleEndian.Uint64(b[i:]) &^ (0x80 * ones)
		if ((x+(0x80-'A')*ones)&^(x+(0x7f-'Z')*ones))&(0x80*ones) != 0 {
			return true
		}
	}
	for ; i < len(b); i++ {
		if 'A' <= b[i] && b[i] <= 'Z' {
			return true
		}
	}
	return false
}

const ones = 0x0101010101010101

func (t *Table) hostFolded(authority []byte) *VirtualHost {
	var buf [maxAuthority]byte
	h := buf[:len(authority)]
	for i, c := range authority {
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		h[i] = c
	}
	return t.index.find(h)
}

func (x *hostIndex) find(h []byte) *VirtualHost {
	if v := x.exact[string(h)]; v != nil {
		return v
	}
	for i := range x.suffixes {
		if w := &x.suffixes[i]; len(h) > w.length {
			if v := w.hosts[string(h[len(h)-w.length:])]; v != nil {
				return v
			}
		}
	}
	for i := range x.prefixes {
		if w := &x.prefixes[i]; len(h) > w.length {
			if v := w.hosts[string(h[:w.length])]; v != nil {
				return v
			}
		}
	}
	return x.any
}

// trimPort cuts ":port" off; an IPv6 literal keeps its brackets.
func trimPort(a []byte) []byte {
	for i := len(a) - 1; i >= 0; i-- {
		switch c := a[i]; {
		case c == ':':
			return a[:i] // an empty port too (RFC 3986 section 3.2.3)
		case c < '0' || c > '9':
			return a
		}
	}
	return a
}
