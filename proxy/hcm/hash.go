package hcm

import (
	"bytes"
	"sort"
	"strconv"
	"time"

	"github.com/cespare/xxhash/v2"

	"weft.mesh/weft/proxy/route"
	"weft.mesh/weft/proxy/stream"
)

// hash combines the route's hash policies as Envoy does; ok is false if none yielded a value.
func (x *exchange) hash(policies []route.HashPolicy) (h uint64, ok bool) {
	for i := range policies {
		p := &policies[i]
		v, found := x.hashOne(p)
		if found {
			if ok {
				h = (h<<1 | h>>63) ^ v
			} else {
				h, ok = v, true
			}
		}
		if p.Terminal && ok {
			break
		}
	}
	return h, ok
}

func (x *exchange) hashOne(p *route.HashPolicy) (uint64, bool) {
	switch p.Kind {
	case route.HashHeader:
		return x.hashHeader(p.Name)
	case route.HashCookie:
		return x.hashCookie(p)
	case route.HashSourceIP:
		a := x.conn.info.Remote.Addr().Unmap()
		if x.info.Client.IsValid() {
			a = x.info.Client.Addr()
		}
		var b [64]byte
		return xxhash.Sum64(a.AppendTo(b[:0])), a.IsValid()
	case route.HashQuery:
		_, q := route.SplitQuery(x.req.Path)
		v, ok := route.Param(q, p.Name)
		return xxhash.Sum64(v), ok
	}
	return 0, false
}

// hashHeader hashes the value; several lines are hashed in sorted order.
func (x *exchange) hashHeader(name string) (uint64, bool) {
	switch name {
	case ":authority", "host":
		return xxhash.Sum64(x.req.Authority), true
	case ":path":
		return xxhash.Sum64(x.req.Path), true
	case ":method":
		return xxhash.Sum64(x.req.Method), true
	}
	var one []byte
	var more [][]byte
	for _, l := range x.req.Fields.All() {
		if !stream.EqualFold(l.Name, name) {
			continue
		}
		if one == nil {
			one = l.Value
			if one == nil {
				one = empty
			}
			continue
		}
		if more == nil {
			more = append(more, one)
		}
		more = append(more, l.Value)
	}
	if more == nil {
		return xxhash.Sum64(one), one != nil
	}
	sort.Slice(more, func(i, j int) bool { return bytes.Compare(more[i], more[j]) < 0 })
	d := xxhash.New()
	for _, v := range more {
		_, _ = d.Write(v)
	}
	return d.Sum64(), true
}

// hashCookie hashes the cookie, and makes one for the client if it must and has none.
func (x *exchange) hashCookie(p *route.HashPolicy) (uint64, bool) {
	for _, l := range x.req.Fields.All() {
		if stream.EqualFold(l.Name, "cookie") {
			if v, ok := cookie(l.Value, p.Name); ok {
				return xxhash.Sum64(v), true
			}
		}
	}
	if !p.Generate {
		return 0, false
	}
	v := appendHex64(nil, fresh())
	x.up.cookie = setCookie(p, v)
	return xxhash.Sum64(v), true
}

func cookie(line []byte, name string) ([]byte, bool) {
	for len(line) > 0 {
		pair := line
		if i := bytes.IndexByte(line, ';'); i >= 0 {
			pair, line = line[:i], line[i+1:]
		} else {
			line = nil
		}
		k, v, _ := bytes.Cut(bytes.TrimSpace(pair), []byte{'='})
		if string(k) == name && len(v) > 0 {
			return bytes.Trim(v, `"`), true
		}
	}
	return nil, false
}

func setCookie(p *route.HashPolicy, value []byte) []byte {
	b := append(append(append(append([]byte(p.Name), '='), '"'), value...), '"')
	if p.TTL > 0 {
		b = strconv.AppendInt(append(b, "; Max-Age="...), int64(p.TTL/time.Second), 10)
	}
	if p.Path != "" {
		b = append(append(b, "; Path="...), p.Path...)
	}
	for _, a := range p.Attrs {
		b = append(append(b, "; "...), a[0]...)
		if a[1] != "" {
			b = append(append(b, '='), a[1]...)
		}
	}
	return append(b, "; HttpOnly"...)
}
