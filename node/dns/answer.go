package dns

import (
	"net/netip"
	"strings"

	"golang.org/x/net/dns/dnsmessage"
)

// answerTTL is short: addresses of headless services change with their pods.
const answerTTL = 5 // seconds

// udpSize is the largest UDP answer for a client that names no size
// (RFC 1035 section 4.2.1); ednsSize is the most we send to one that does.
const (
	udpSize  = 512
	ednsSize = 1232
)

// query is one parsed request.
type query struct {
	header   dnsmessage.Header
	question dnsmessage.Question
	alias    dnsmessage.Name // what the name stands for, if not for itself; answered as a CNAME
	edns     bool
	size     int // bytes the client takes over UDP
}

// parse reads a request. respond is false when there is nothing that could be
// answered: a message without a header, or a response.
func parse(msg []byte) (q query, code dnsmessage.RCode, respond bool) {
	var p dnsmessage.Parser
	h, err := p.Start(msg)
	if err != nil || h.Response {
		return q, 0, false
	}
	q.header, q.size = h, udpSize
	if h.OpCode != 0 {
		return q, dnsmessage.RCodeNotImplemented, true
	}
	q.question, err = p.Question()
	if err != nil {
		return q, dnsmessage.RCodeFormatError, true
	}
	if _, err := p.Question(); err != dnsmessage.ErrSectionDone {
		return q, dnsmessage.RCodeFormatError, true // RFC 9619: one question
	}
	if p.SkipAllAnswers() != nil || p.SkipAllAuthorities() != nil {
		return q, dnsmessage.RCodeFormatError, true
	}
	for {
		rh, err := p.AdditionalHeader()
		if err == dnsmessage.ErrSectionDone {
			return q, dnsmessage.RCodeSuccess, true
		}
		if err != nil {
			return q, dnsmessage.RCodeFormatError, true
		}
		if rh.Type == dnsmessage.TypeOPT && !q.edns {
			q.edns, q.size = true, min(max(int(rh.Class), udpSize), ednsSize)
		}
		if p.SkipAdditional() != nil {
			return q, dnsmessage.RCodeFormatError, true
		}
	}
}

// answer is the reply to a client's msg from the table, or nil when there is none.
// known is false when the table does not hold the name, so that the caller may
// ask elsewhere. limit bounds the size; 0 means what the client takes over UDP.
func (s *Server) answer(msg []byte, limit int, client netip.Addr) (reply []byte, known bool) {
	q, code, respond := parse(msg)
	if !respond {
		return nil, true
	}
	s.counts.requests.Add(1)
	if limit == 0 {
		limit = q.size
	}
	if code != dnsmessage.RCodeSuccess {
		return q.build(nil, code, limit), true
	}
	if c := q.question.Class; c != dnsmessage.ClassINET && c != dnsmessage.ClassANY {
		return q.build(nil, dnsmessage.RCodeRefused, limit), true
	}
	addrs, known := s.resolve(q.question.Name.String(), client)
	if !known && s.Search != "" {
		addrs, known = s.resolveSearched(&q, client)
	}
	if !known || s.Partial && !isAddress(q.question.Type) {
		q.alias = dnsmessage.Name{}
		return q.build(nil, dnsmessage.RCodeNameError, limit), false
	}
	var records []dnsmessage.AResource
	if t := q.question.Type; t == dnsmessage.TypeA || t == dnsmessage.TypeALL {
		for _, a := range addrs {
			records = append(records, dnsmessage.AResource{A: a.As4()})
		}
	}
	return q.build(records, dnsmessage.RCodeSuccess, limit), true
}

// isAddress tells whether a question is for addresses.
func isAddress(t dnsmessage.Type) bool {
	return t == dnsmessage.TypeA || t == dnsmessage.TypeAAAA || t == dnsmessage.TypeALL
}

// resolveSearched finds the name that a client's resolver put the search domain behind, and
// has the answer say so: that spares the resolver the rest of its search list.
func (s *Server) resolveSearched(q *query, client netip.Addr) ([]netip.Addr, bool) {
	name := strings.ToLower(strings.TrimSuffix(q.question.Name.String(), "."))
	rest, ok := strings.CutSuffix(name, "."+s.Search)
	if !ok {
		return nil, false
	}
	addrs, known := s.resolve(rest, client)
	if known {
		if alias, err := dnsmessage.NewName(rest + "."); err == nil {
			q.alias = alias
		}
	}
	return addrs, known
}

// failure says that nobody could be asked; nil if msg is nothing that could be answered.
func failure(msg []byte) []byte {
	q, _, respond := parse(msg)
	if !respond {
		return nil
	}
	return q.encode(nil, dnsmessage.RCodeServerFailure, false)
}

// build encodes a reply of at most limit bytes; what does not fit is left out
// and the reply says that it is truncated.
func (q query) build(records []dnsmessage.AResource, code dnsmessage.RCode, limit int) []byte {
	reply := q.encode(records, code, false)
	for len(reply) > limit && len(records) > 0 {
		records = records[:len(records)/2]
		reply = q.encode(records, code, true)
	}
	return reply
}

func (q query) encode(records []dnsmessage.AResource, code dnsmessage.RCode, truncated bool) []byte {
	b := dnsmessage.NewBuilder(nil, dnsmessage.Header{
		ID: q.header.ID, Response: true, OpCode: q.header.OpCode, Authoritative: true, Truncated: truncated,
		RecursionDesired: q.header.RecursionDesired, RecursionAvailable: true, RCode: code,
	})
	b.EnableCompression()
	if q.question.Name.Length > 0 {
		if b.StartQuestions() != nil || b.Question(q.question) != nil {
			return nil
		}
	}
	if b.StartAnswers() != nil {
		return nil
	}
	owner := q.question.Name
	if q.alias.Length > 0 {
		h := dnsmessage.ResourceHeader{Name: owner, Type: dnsmessage.TypeCNAME, Class: dnsmessage.ClassINET, TTL: answerTTL}
		if b.CNAMEResource(h, dnsmessage.CNAMEResource{CNAME: q.alias}) != nil {
			return nil
		}
		owner = q.alias
	}
	for _, r := range records {
		h := dnsmessage.ResourceHeader{Name: owner, Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET, TTL: answerTTL}
		if b.AResource(h, r) != nil {
			return nil
		}
	}
	if q.edns {
		var h dnsmessage.ResourceHeader
		if h.SetEDNS0(ednsSize, dnsmessage.RCodeSuccess, false) != nil || b.StartAdditionals() != nil || b.OPTResource(h, dnsmessage.OPTResource{}) != nil {
			return nil
		}
	}
	out, err := b.Finish()
	if err != nil {
		return nil
	}
	return out
}
