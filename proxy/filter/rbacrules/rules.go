// Package rbacrules decides on access by Envoy's RBAC policies, for HTTP
// requests and for connections.
//
// Rules are compiled once ([Compile]) and immutable; a check does not allocate,
// but for regular expressions. What it cannot evaluate is refused when
// compiling, never skipped: conditions in CEL, metadata (JWT claims), custom
// matchers, action LOG, audit logging.
package rbacrules

import (
	"net/netip"
	"sort"
	"strings"
	"sync"

	"weft.mesh/weft/proxy/route"
	"weft.mesh/weft/proxy/stream"
)

// Subject is what is being decided on.
type Subject struct {
	Conn *stream.ConnInfo
	Req  *stream.Request // nil for a connection: conditions on HTTP fields then find nothing
	// Client is the caller's address after the x-forwarded-for rules; invalid: Conn.Remote.
	Client netip.Addr
}

// Rules are compiled policies of one action.
type Rules struct {
	deny     bool
	policies []policy // in order of their names, as Envoy tries them
}

type policy struct {
	name       string
	details    string
	permission match // any of the policy's
	principal  match
}

// match is a compiled condition.
type match func(s *Subject) bool

const (
	detailsPrefix = "rbac_access_denied_matched_policy["
	noPolicy      = detailsPrefix + "none]"
)

// Check is Allowed for a request (or a connection: req is nil), without allocation.
func (r *Rules) Check(c *stream.ConnInfo, req *stream.Request, client netip.Addr) (ok bool, details string) {
	s := subjects.Get().(*Subject)
	s.Conn, s.Req, s.Client = c, req, client
	ok, details = r.Allowed(s)
	*s = Subject{}
	subjects.Put(s)
	return ok, details
}

var subjects = sync.Pool{New: func() any { return new(Subject) }}

// Allowed decides. With a refusal come the response code details, which name
// the policy that denied, or none if no policy allowed.
func (r *Rules) Allowed(s *Subject) (ok bool, details string) {
	for i := range r.policies {
		if p := &r.policies[i]; p.principal(s) && p.permission(s) {
			if r.deny {
				return false, p.details
			}
			return true, ""
		}
	}
	if r.deny {
		return true, ""
	}
	return false, noPolicy
}

func (r *Rules) add(name string, permission, principal match) {
	clean := strings.Map(func(c rune) rune {
		if strings.ContainsRune(" \t\n\v\f\r", c) {
			return '_'
		}
		return c
	}, name)
	r.policies = append(r.policies, policy{name, detailsPrefix + clean + "]", permission, principal})
}

func (r *Rules) sort() {
	sort.Slice(r.policies, func(i, j int) bool { return r.policies[i].name < r.policies[j].name })
}

func always(*Subject) bool { return true }

func not(m match) match { return func(s *Subject) bool { return !m(s) } }

func all(ms []match) match {
	return func(s *Subject) bool {
		for _, m := range ms {
			if !m(s) {
				return false
			}
		}
		return true
	}
}

func anyOf(ms []match) match {
	if len(ms) == 1 {
		return ms[0]
	}
	return func(s *Subject) bool {
		for _, m := range ms {
			if m(s) {
				return true
			}
		}
		return false
	}
}

// header compares a header; a connection has none.
func header(h route.HeaderMatch) match {
	return func(s *Subject) bool {
		if s.Req != nil {
			return h.Matches(s.Req)
		}
		switch {
		case h.Range == nil && h.Match.Kind == route.StringPresent:
			return h.Invert
		case h.TreatMissingAsEmpty && h.Range == nil:
			return h.Match.Matches(nil) != h.Invert
		}
		return false
	}
}

func urlPath(m route.StringMatch) match {
	return func(s *Subject) bool {
		if s.Req == nil {
			return false
		}
		p, _ := route.SplitQuery(s.Req.Path)
		return m.Matches(p)
	}
}

// principal compares the identity that the peer proved; without one nothing fits.
func principal(m *route.StringMatch) match {
	return func(s *Subject) bool {
		if !s.Conn.MutualTLS() {
			return false
		}
		return m == nil || m.Matches(stream.Bytes(s.Conn.PeerID.String()))
	}
}

func serverName(m route.StringMatch) match {
	return func(s *Subject) bool { return m.Matches(stream.Bytes(s.Conn.SNI)) }
}

func destinationPort(from, to uint32) match {
	return func(s *Subject) bool {
		p := uint32(s.Conn.Local.Port())
		return p >= from && p < to
	}
}

func destinationIP(p netip.Prefix) match {
	return func(s *Subject) bool { return p.Contains(s.Conn.Local.Addr().Unmap()) }
}

// sourceIP is the connection's client, as a PROXY header says if there is one; x-forwarded-for has no say (Envoy's source_ip).
func sourceIP(p netip.Prefix) match {
	return func(s *Subject) bool { return p.Contains(s.Conn.Remote.Addr().Unmap()) }
}

// directRemoteIP is the socket's peer, whatever headers say (Envoy's direct_remote_ip).
func directRemoteIP(p netip.Prefix) match {
	return func(s *Subject) bool { return p.Contains(s.Conn.DirectRemote().Addr().Unmap()) }
}

func remoteIP(p netip.Prefix) match {
	return func(s *Subject) bool {
		a := s.Client
		if !a.IsValid() {
			a = s.Conn.Remote.Addr()
		}
		return p.Contains(a.Unmap())
	}
}
