package main

import (
	"github.com/containernetworking/cni/pkg/skel"

	"weft.mesh/weft/internal/version"
	"weft.mesh/weft/node/cni"
)

// plugin answers a container runtime, which calls the CNI plugin weft-cni by the
// variable CNI_COMMAND and without arguments. It does not return if something fails.
func plugin() {
	skel.PluginMainFuncs(cni.Functions(), cni.Versions(), "weft-cni "+version.Get().Version)
}
