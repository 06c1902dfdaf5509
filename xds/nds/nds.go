// Package nds is the message istio.networking.nds.v1.NameTable, by which a
// control plane tells an agent beside a workload what to answer to DNS queries.
//
// The message has no published Go module, so it is encoded here by hand, after
// pkg/dns/proto/nds.proto of istio/istio:
//
//	message NameTable {
//	  message NameInfo {
//	    repeated string ips = 1;
//	    string registry = 2;
//	    string shortname = 3;
//	    string namespace = 4;
//	    repeated string alt_hosts = 5 [deprecated = true];
//	  }
//	  map<string, NameInfo> table = 1;
//	  NameInfo name_info = 2;
//	}
//
// Fields 5 and 2 are neither written nor read: no Istio that is supported fills them.
// Equal tables have equal bytes. What is read is bounded.
package nds

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"

	"weft.mesh/weft/xds/fields"
)

// Registries that a name comes from, in Istio's words.
const (
	Kubernetes = "Kubernetes"
	External   = "External" // a ServiceEntry
)

// Bounds of what [Decode] takes.
const (
	MaxNames = 200_000
	MaxIPs   = 10_000 // of one name: the endpoints of a headless service
	maxText  = 1024   // bytes of a text; a name has at most 255
)

// Info is what belongs to a name. As JSON it has the names that Istio's debug pages give it.
type Info struct {
	IPs      []string `json:"ips,omitempty"`
	Registry string   `json:"registry,omitempty"`
	// Shortname and Namespace are those of a Kubernetes Service, from which the agent makes the
	// shorter forms of the name; empty for others. A pod of a headless Service has "pod.service".
	Shortname string `json:"shortname,omitempty"`
	Namespace string `json:"namespace,omitempty"`
}

// Field numbers.
const (
	fieldTable                                      = 1
	fieldKey, fieldValue                            = 1, 2
	fieldIPs, fieldRegistry, fieldShort, fieldSpace = 1, 2, 3, 4
)

// Encode is the message of a table. Names are sorted.
func Encode(table map[string]Info) []byte {
	var b []byte
	for _, name := range slices.Sorted(maps.Keys(table)) {
		info := table[name]
		entry := appendText(nil, fieldKey, name)
		entry = protowire.AppendBytes(protowire.AppendTag(entry, fieldValue, protowire.BytesType), info.encode())
		b = protowire.AppendBytes(protowire.AppendTag(b, fieldTable, protowire.BytesType), entry)
	}
	return b
}

func (i *Info) encode() []byte {
	var b []byte
	for _, ip := range i.IPs {
		b = protowire.AppendString(protowire.AppendTag(b, fieldIPs, protowire.BytesType), ip)
	}
	b = appendText(b, fieldRegistry, i.Registry)
	b = appendText(b, fieldShort, i.Shortname)
	return appendText(b, fieldSpace, i.Namespace)
}

// appendText leaves out what is empty, as proto3 does.
func appendText(b []byte, field protowire.Number, s string) []byte {
	if s == "" {
		return b
	}
	return protowire.AppendString(protowire.AppendTag(b, field, protowire.BytesType), s)
}

// Decode reads a message. Fields that are not known are passed by; what is
// malformed or beyond the bounds is an error. Of a name that comes twice the last counts.
func Decode(b []byte) (map[string]Info, error) {
	table := map[string]Info{}
	err := fields.Each(b, func(field protowire.Number, v []byte) error {
		if field != fieldTable {
			return nil
		}
		name, info, err := entry(v)
		if err != nil {
			return err
		}
		if table[name] = info; len(table) > MaxNames {
			return fmt.Errorf("more than %d names", MaxNames)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("name table: %w", err)
	}
	return table, nil
}

func entry(b []byte) (name string, info Info, err error) {
	err = fields.Each(b, func(field protowire.Number, v []byte) (err error) {
		switch field {
		case fieldKey:
			name, err = text(v)
		case fieldValue:
			err = info.decode(v)
		}
		return err
	})
	if err != nil {
		err = fmt.Errorf("name %.64q: %w", name, err)
	}
	return name, info, err
}

func (i *Info) decode(b []byte) error {
	return fields.Each(b, func(field protowire.Number, v []byte) (err error) {
		switch field {
		case fieldIPs:
			var ip string
			if ip, err = text(v); err == nil && len(i.IPs) == MaxIPs {
				err = fmt.Errorf("more than %d addresses", MaxIPs)
			}
			i.IPs = append(i.IPs, ip)
		case fieldRegistry:
			i.Registry, err = text(v)
		case fieldShort:
			i.Shortname, err = text(v)
		case fieldSpace:
			i.Namespace, err = text(v)
		}
		return err
	})
}

var errText = errors.New("a text that is no UTF-8")

func text(b []byte) (string, error) {
	if len(b) > maxText {
		return "", fmt.Errorf("a text of %d bytes, at most %d", len(b), maxText)
	}
	if !utf8.Valid(b) {
		return "", errText
	}
	return string(b), nil
}
