// Package hotrestart passes listening sockets from a running proxy (the parent) to the one
// that replaces it (the child), over a Unix socket in their state directory.
//
// It owns the conversation: who may take over, which versions understand each other,
// descriptors and their checks. It knows nothing of proxies: what is offered is asked of
// [Settings.Socket], and stopping is done by [Settings.HandOver].
//
// Only the same user, node, role and network namespace may take over, one at a time. Messages
// are at most 4 KiB with at most one descriptor; anything else ends the conversation, and
// until the child says that it serves, an end changes nothing for the parent.
// docs/design/0004-hot-restart.md has the protocol.
package hotrestart
