package install

// Severities of a finding.
const (
	SeverityError   = "error"   // install refuses
	SeverityWarning = "warning" // install goes on
)

// Finding is something about a cluster that stands in the way, or may.
type Finding struct {
	Severity string `json:"severity"`
	Message  string `json:"message"`
	Fix      string `json:"fix,omitempty"`
}

// Error is the message with the fix.
func (f *Finding) Error() string {
	if f.Fix == "" {
		return f.Message
	}
	return f.Message + "\n      fix: " + f.Fix
}
