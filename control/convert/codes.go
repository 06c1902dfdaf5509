package convert

// Diagnostic codes of this package. They are stable: scripts and documentation rely on them.
const (
	CodeInvalidYAML      = "invalid-yaml"
	CodeTooLarge         = "too-large"
	CodeNotUTF8          = "not-utf8"
	CodeTab              = "tab-indentation"
	CodeAlias            = "yaml-alias"
	CodeDuplicateKey     = "duplicate-key"
	CodeUnknownKind      = "unknown-kind"
	CodeUnknownField     = "unknown-field"
	CodeUnsupportedField = "unsupported-field"
	CodeDeprecatedField  = "deprecated-field"
	CodeServerField      = "server-field"
	CodeEmptyField       = "empty-field"
	CodeWrongType        = "wrong-type"
	CodeExclusive        = "exclusive-fields"
	CodeMissingField     = "missing-field"
	CodeInvalidName      = "invalid-name"
	CodeInvalidLabel     = "invalid-label"
	CodeInvalidValue     = "invalid-value"
	CodeInvalidHost      = "invalid-host"
	CodeInvalidRegex     = "invalid-regex"
	CodeInvalidPort      = "invalid-port"
	CodeInvalidDuration  = "invalid-duration"
	CodeInvalidWeight    = "invalid-weight"
	CodeDuplicateObject  = "duplicate-object"
	CodeDuplicatePort    = "duplicate-port"
	CodeDuplicateHost    = "duplicate-host"
	CodeDuplicateSubset  = "duplicate-subset"
	CodeSelectorMismatch = "selector-mismatch"
	CodeNodePort         = "no-node-port"
	CodeAnnotation       = "unsupported-annotation"
	CodeEmptyRules       = "policy-without-rules"
	CodeTLSVersions      = "tls-versions-crossed"
	CodePortOpenHost     = "host-without-port"
	CodeGatewaySecret    = "secret-for-gateways-only"
	CodePrefixBits       = "prefix-host-bits"
	CodeNoOutlier        = "failover-without-outlier"
	// Reported by sources.
	CodeUnreadableFile = "unreadable-file"
	CodeObjectShadowed = "object-shadowed"
)

// CodeInfo documents one code.
type CodeInfo struct{ Code, Meaning, Fix string }

// Codes lists every code of this package with its meaning and what to do about it.
func Codes() []CodeInfo {
	return []CodeInfo{
		{CodeInvalidYAML, "The text is not YAML, or a document is not a mapping.", "Correct the syntax at the line given."},
		{CodeTooLarge, "A file, a document, its nesting or the number of its nodes exceeds the limit.", "Split the file; a document may have 1 MiB."},
		{CodeNotUTF8, "The file has bytes that are not UTF-8.", "Save the file as UTF-8."},
		{CodeTab, "A line is indented with a tab, which YAML forbids.", "Indent with spaces."},
		{CodeAlias, "An alias refers to itself, aliases expand to too much, or a merge key (<<) is used.", "Write the fields out."},
		{CodeDuplicateKey, "A mapping has the same key twice.", "Keep one of them."},
		{CodeUnknownKind, "The kind, or its API version, is not one that Weft reads.", "Use one of the kinds listed in the message."},
		{CodeUnknownField, "The kind has no such field.", "Use the name that the hint suggests, or check the indentation."},
		{CodeUnsupportedField, "The field exists in the API but is not implemented yet; accepting it would be ignoring it.", "Use what the hint names, or remove the field."},
		{CodeDeprecatedField, "The field or value is deprecated or hidden.", "Use the replacement that the hint names."},
		{CodeServerField, "The field is written by a server (status, uid, resourceVersion); it is dropped.", "Remove it; nothing depends on it."},
		{CodeEmptyField, "The field is written without a value (null).", "Give it a value or remove it."},
		{CodeWrongType, "The value has another type than the field.", "Write the type that the hint names; quote strings that look like numbers or booleans."},
		{CodeExclusive, "Two fields are set that exclude each other.", "Keep one of them."},
		{CodeMissingField, "A required field is missing.", "Add it."},
		{CodeInvalidName, "A name is not a valid DNS-1123 name.", "Use lower-case letters, digits and '-'."},
		{CodeInvalidLabel, "A label or annotation key or value is not valid.", "Labels have at most 63 letters, digits, '-', '_' and '.', and begin and end with a letter or digit."},
		{CodeInvalidValue, "The value is not one that the field can have.", "Use one of the values that the hint names."},
		{CodeInvalidHost, "A host is neither a name, a wildcard like *.example.com nor an address.", "Correct the host."},
		{CodeInvalidRegex, "A regular expression is not valid RE2.", "Correct it; RE2 has no look-around and no back-references."},
		{CodeInvalidPort, "A port is not between 1 and 65535.", "Correct the port."},
		{CodeInvalidDuration, "A duration has no unit, is negative, is zero where it must not be, or is finer than 1 ms.", "Write it like 500ms, 5s or 1m30s."},
		{CodeInvalidWeight, "Weights are negative, or several destinations have no weight at all.", "Give every destination a weight; the sum should be 100."},
		{CodeDuplicateObject, "The same object is written twice.", "Keep one of them."},
		{CodeDuplicatePort, "A port number or name occurs twice in one object.", "Give each port its own number and name."},
		{CodeDuplicateHost, "A host occurs twice in one object.", "Keep one of them."},
		{CodeDuplicateSubset, "Two subsets of one DestinationRule have the same name.", "Rename one of them."},
		{CodeSelectorMismatch, "A Deployment's selector does not match the labels of its own pod template.", "Make spec.selector.matchLabels a part of spec.template.metadata.labels."},
		{CodeNodePort, "The service type asks for a node port or a load balancer, which does not exist in local mode; the service is reachable inside the mesh as ClusterIP.", "Use a Gateway to reach it from outside."},
		{CodeAnnotation, "An annotation asks for something that is not implemented.", "Remove the annotation."},
		{CodeEmptyRules, "A DENY policy has no rules and so never denies anything.", "Add a rule ([{}] denies everything), or remove the policy."},
		{CodeTLSVersions, "The minimum TLS version is above the maximum: no client can connect.", "Lower minProtocolVersion or raise maxProtocolVersion."},
		{CodePortOpenHost, "A host in a policy has no port: `Host: name:80` is another string and passes by it.", "Add the same host with \":*\"."},
		{CodeGatewaySecret, "A DestinationRule names a Secret, which gateways alone get; sidecars make no connection to the host (503).", "Send the traffic through a gateway, or use files for sidecars."},
		{CodeNoOutlier, "Failover between localities is set without outlierDetection, and so never happens.", "Add outlierDetection; {} is enough."},
		{CodePrefixBits, "An address range has bits set after its prefix length; they do not count.", "Write the range that the hint names, or a single address without a length."},
		{CodeUnreadableFile, "A file or directory that is watched cannot be read; what was read of it before stays in force.", "Make it readable."},
		{CodeObjectShadowed, "The same object comes from two places; the one named in the message wins and the other has no effect.", "Remove one of them."},
	}
}
