package convert

import (
	"slices"
	"strconv"
	"strings"

	networking "istio.io/api/networking/v1alpha3"

	"weft.mesh/weft/model"
)

// localityLB reads a localityLbSetting; nil for none.
func (c *conv) localityLB(path string, l *networking.LocalityLoadBalancerSetting) *model.LocalityLB {
	if l == nil {
		return nil
	}
	out := &model.LocalityLB{Disabled: l.Enabled != nil && !l.Enabled.Value}
	if len(l.Distribute) > 0 && (len(l.Failover) > 0 || len(l.FailoverPriority) > 0) {
		c.fail(CodeExclusive, path+".distribute", "", "distribute and failover exclude each other", "keep one of them")
	}
	var from []string
	for i, d := range l.Distribute {
		p := idx(path+".distribute", i)
		c.locality(p+".from", d.From)
		c.overlap(p+".from", d.From, from)
		from = append(from, d.From)
		out.Distribute = append(out.Distribute, model.Distribute{From: d.From, To: c.localityWeights(p+".to", d.To)})
	}
	from = nil
	for i, f := range l.Failover {
		p := idx(path+".failover", i)
		for _, r := range []struct{ field, v string }{{".from", f.From}, {".to", f.To}} {
			if r.v == "" || strings.ContainsAny(r.v, "*/") {
				c.fail(CodeInvalidValue, p+r.field, r.v, "failover is from one region to another", "name a region, without a zone and without *")
			}
		}
		if f.From == f.To && f.From != "" {
			c.fail(CodeInvalidValue, p+".to", f.To, "a region cannot take over for itself", "name another region")
		}
		if slices.Contains(from, f.From) {
			c.fail(CodeInvalidValue, p+".from", f.From, "the region fails over twice", "keep one of them")
		}
		from = append(from, f.From)
		out.Failover = append(out.Failover, model.Failover{From: f.From, To: f.To})
	}
	for i, k := range l.FailoverPriority {
		if key, _, _ := strings.Cut(k, "="); key == "" {
			c.fail(CodeInvalidValue, idx(path+".failoverPriority", i), k, "this names no label", "write key, or key=value")
		}
	}
	out.FailoverPriority = l.FailoverPriority
	return out
}

// localityWeights checks the shares of localities.
func (c *conv) localityWeights(path string, to map[string]uint32) map[string]uint32 {
	if len(to) == 0 {
		c.missing(path, "say where the traffic goes, like \"region/zone/*\": 100")
		return nil
	}
	names := make([]string, 0, len(to))
	for l := range to {
		names = append(names, l)
	}
	slices.Sort(names)
	var sum uint64
	for i, l := range names {
		c.locality(path, l)
		c.overlap(path, l, names[:i])
		if w := to[l]; w == 0 || w > 100 {
			c.fail(CodeInvalidWeight, path, strconv.FormatUint(uint64(w), 10), "the share of "+strconv.Quote(l)+" is not a percentage", "use 1 to 100, and leave out what gets nothing")
		}
		sum += uint64(to[l])
	}
	if sum != 100 {
		c.fail(CodeInvalidWeight, path, strconv.FormatUint(sum, 10), "the shares do not sum to 100", "make them sum to 100")
	}
	return to
}

// locality checks region/zone/subzone, of which the last given part may be "*".
func (c *conv) locality(path, l string) {
	parts := strings.Split(l, "/")
	bad := len(parts) > 3
	for i, p := range parts {
		bad = bad || p == "" || strings.Contains(p, "*") && (p != "*" || i != len(parts)-1)
	}
	if bad {
		c.fail(CodeInvalidValue, path, l, "this is not a locality", "write region, region/zone or region/zone/subzone; * stands for all at the end only")
	}
}

// overlap refuses a locality that an earlier one has too: which of them counted would be chance.
func (c *conv) overlap(path, l string, earlier []string) {
	for _, e := range earlier {
		if within(l, e) || within(e, l) {
			c.fail(CodeInvalidValue, path, l, "the locality overlaps with "+strconv.Quote(e), "keep one of them, or make them differ")
			return
		}
	}
}

// within tells whether a locality is part of another.
func within(l, of string) bool {
	l, of = strings.TrimSuffix(l, "*"), strings.TrimSuffix(of, "*")
	l, of = strings.TrimSuffix(l, "/"), strings.TrimSuffix(of, "/")
	return of == "" || l == of || strings.HasPrefix(l, of+"/")
}
