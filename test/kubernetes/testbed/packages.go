package testbed

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// debian are the programs that are not built, with the packages that have them.
var debian = []struct{ program, pkg string }{
	{"containerd", "containerd"}, {"runc", "runc"}, {"/usr/lib/cni/bridge", "containernetworking-plugins"},
	{"conntrack", "conntrack"}, {"nft", "nftables"}, {"iptables", "iptables"}, {"nsenter", "util-linux"},
	{"mount", "mount"},
}

// Packages installs what is missing through apt-get.
func (b *Bed) Packages(ctx context.Context) error {
	var missing []string
	for _, d := range debian {
		if !installed(d.program) {
			missing = append(missing, d.pkg)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	if err := root("install " + strings.Join(missing, " ")); err != nil {
		return err
	}
	if !installed("apt-get") {
		return fmt.Errorf("missing: %s: install them (there is no apt-get here)", strings.Join(missing, ", "))
	}
	b.say("installing %s", strings.Join(missing, " "))
	for _, args := range [][]string{{"update", "-qq"}, append([]string{"install", "-y", "-qq", "--no-install-recommends"}, missing...)} {
		var out bytes.Buffer
		c := exec.CommandContext(ctx, "apt-get", args...)
		c.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
		c.Stdout, c.Stderr = &out, &out
		if err := c.Run(); err != nil {
			return fmt.Errorf("apt-get %s: %w\n%s", args[0], err, out.String())
		}
	}
	return nil
}

func installed(program string) bool {
	if _, err := exec.LookPath(program); err == nil {
		return true
	}
	_, err := os.Stat("/usr/sbin/" + strings.TrimPrefix(program, "/"))
	return err == nil
}
