package local

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
)

// ForbiddenError says that this machine does not let the user make namespaces,
// and what can be done about it.
type ForbiddenError struct {
	Err    error
	Reason string // what was found
	Enable string // command that allows it; "" when we cannot tell
	Root   bool   // we are root already
}

func (e *ForbiddenError) Unwrap() error { return e.Err }

func (e *ForbiddenError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "local: make namespaces: %v: %s.", e.Err, e.Reason)
	if e.Root {
		b.WriteString(" Run weft where root may make network and mount namespaces (CAP_SYS_ADMIN), which most containers do not allow.")
		return b.String()
	}
	b.WriteString(" There are two ways out:\n")
	if e.Enable != "" {
		fmt.Fprintf(&b, "  1. allow user namespaces:  sudo %s\n", e.Enable)
	} else {
		b.WriteString("  1. allow user namespaces (inside a container, its runtime must allow them)\n")
	}
	b.WriteString("  2. run weft as root:       sudo weft …")
	return b.String()
}

// switches are the settings with which systems forbid user namespaces.
var switches = []struct {
	path, forbids, reason, enable string
}{
	{"/proc/sys/kernel/unprivileged_userns_clone", "0", "ordinary users may not make user namespaces (kernel.unprivileged_userns_clone is 0)",
		"sysctl -w kernel.unprivileged_userns_clone=1"},
	{"/proc/sys/user/max_user_namespaces", "0", "user namespaces are turned off (user.max_user_namespaces is 0)",
		"sysctl -w user.max_user_namespaces=28633"},
	{"/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1", "AppArmor keeps ordinary users from using user namespaces (kernel.apparmor_restrict_unprivileged_userns is 1)",
		"sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"},
}

// diagnose turns an error of making namespaces into one that says what to do.
// Errors with other causes come back as they are. read gives a file's content.
func diagnose(err error, root bool, read func(string) string) error {
	denied := errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.EACCES) || errors.Is(err, syscall.ENOSPC) ||
		errors.Is(err, syscall.EUSERS) || errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.ENOSYS)
	if !denied {
		return fmt.Errorf("local: make namespaces: %w", err)
	}
	out := &ForbiddenError{Err: err, Root: root, Reason: "this machine does not let you make user and network namespaces"}
	if root {
		out.Reason = "this root user has not the right to"
		return out
	}
	for _, s := range switches {
		if strings.TrimSpace(read(s.path)) == s.forbids {
			out.Reason, out.Enable = s.reason, s.enable
			return out
		}
	}
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EUSERS) {
		out.Reason = "the limit of user namespaces is reached (user.max_user_namespaces)"
		out.Enable = "sysctl -w user.max_user_namespaces=28633"
	}
	return out
}

func readFile(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	return string(b)
}
