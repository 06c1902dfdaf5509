package render_test

import (
	"regexp"
	"strings"
	"testing"
)

// A running control plane refuses other values of these settings, so an upgrade that has them rolls it; one of other settings does not.
func TestSettingsThatWantAStartRollTheControlPlane(t *testing.T) {
	line := regexp.MustCompile(`weft\.mesh/starts-with: \S+`)
	seen := map[string]string{}
	for _, set := range []string{"meshConfig.accessLogFile=/dev/stdout", "meshConfig.trustDomain=a.example", "meshConfig.trustDomain=b.example",
		"meshConfig.rootNamespace=root", "discoverySelectors[0].matchLabels.mesh=on", "discoverySelectors[0].matchLabels.mesh=off"} {
		got := line.FindString(rendered(t, "", set))
		if before, ok := seen[got]; ok {
			t.Errorf("%s makes the same pods as %s: %q", set, before, got)
		}
		seen[got] = set
	}
	if seen[""] != "meshConfig.accessLogFile=/dev/stdout" {
		t.Errorf("what the control plane follows rolls it: %v", seen)
	}
}

func TestATrustBundleIsWrittenAndMountedWhereItIsAskedFor(t *testing.T) {
	for set, want := range map[string]bool{"global.clusterTrustBundle=true": true, "global.clusterTrustBundle=false": false} {
		got := rendered(t, "", set)
		for _, text := range []string{"clusterTrustBundle: true", "attest", "clustertrustbundles"} {
			if strings.Contains(got, text) != want {
				t.Errorf("%s: %q is there: %t", set, text, !want)
			}
		}
	}
}
