// Package chain puts a CNI plugin onto a node: its program into the folder of
// plugins, and an entry at the end of the network configuration that the
// container runtime uses, which is the first of its folder by name.
//
// Every file is written beside its place and renamed, the program before the
// entry: a runtime sees the old or the new, whole, and never an entry without a
// program. The configuration as it was is kept beside the changed one, with the
// ending ".weft-saved" which runtimes do not read, and comes back byte for byte
// when the plugin is taken away, unless its owner has rewritten it meanwhile:
// then only the entry goes. A file of one plugin (.conf) becomes a list.
//
// It refuses a configuration that it cannot read, rather than to guess, and
// touches no file but the runtime's configuration, its own copy and the program.
package chain

// Chain is one plugin on one node. The zero value of every field but the optional ones is an error.
type Chain struct {
	Program string // the plugin's program, to be copied
	BinDir  string // of the node's plugins, as this process sees it
	ConfDir string // of the node's network configurations, as this process sees it
	// ConfFile is the configuration to join; empty: the first of ConfDir by name, which is the one that runtimes use.
	ConfFile string
	Type     string // name of the plugin: of the program and in the entry
	Entry    any    // what to append; its JSON has "type": Type
}

// savedSuffix is the ending of a configuration as it was before.
const savedSuffix = ".weft-saved"

// maxConf bounds a configuration in bytes.
const maxConf = 1 << 20
