package admin

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
)

// mask is the mask of a config dump: the fields of its messages that are wanted. Nil wants all.
type mask []string

// parseMask reads ?mask=a,b as Envoy does where no resource is named: a message of the dump that does not have all of
// the fields is left out, and of the others the fields stay. Fields below those, and a mask within one resource, are refused.
func parseMask(q url.Values) (mask, error) {
	if !q.Has("mask") {
		return nil, nil
	}
	if q.Get("resource") != "" {
		return nil, fmt.Errorf("mask and resource cannot be used together; use resource and name_regex")
	}
	m := mask{}
	for _, f := range strings.Split(q.Get("mask"), ",") {
		if f == "" || strings.ContainsAny(f, ".*") {
			return nil, fmt.Errorf("mask: field %q: want names of fields of the messages of a dump, as dynamic_active_clusters", f)
		}
		m = append(m, f)
	}
	return m, nil
}

// wants tells whether a message that has these fields is in the dump.
func (m mask) wants(fields string) bool {
	have := strings.Fields(fields)
	return !slices.ContainsFunc(m, func(f string) bool { return !slices.Contains(have, f) })
}

// trim removes what the mask does not name.
func (m mask) trim(message map[string]any) map[string]any {
	if m == nil {
		return message
	}
	for f := range message {
		if f != "@type" && !slices.Contains(m, f) {
			delete(message, f)
		}
	}
	return message
}
