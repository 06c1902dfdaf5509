// Package archtest holds the architecture's rules as a table, and a test that
// compares every Go file of the module with it.
//
// The table is in rules.go: for each package, which packages of ours and which
// outside modules it may import. A new package adds its line in the same commit. A line is
// loosened with a decision record, never to make a build pass.
//
// The check parses files in this process (imports only, whatever their build tags), so that
// Go's test cache notices every change; it starts no go command and needs no network.
package archtest
