// Package compile turns xDS resources into the proxy's immutable configuration.
// It is the only door: protobuf goes in, a [config.View] or a list of refusals
// comes out, and after it nothing sees a protobuf.
//
// It promises that nothing is silently ignored: unknown fields, and every set
// field, type, filter or value that the proxy does not honour, refuse the
// resource with its name, the field's path, the value and what to do.
//
// Refusing is by resource, as Envoy and gRPC do it: of an update with good and
// bad resources the good ones are taken, each bad one is refused and its previous
// version, if there is one, keeps serving. The caller NACKs the whole response
// with the text of [NACK]; so the server learns of it, and no good
// resource is lost because it shared a message with a bad one.
//
// Warming: a new listener is not published before its routes and secrets are
// there, and a changed one keeps serving as it was until then; a new EDS cluster
// is published with Warm false until its endpoints are there. Every wait is
// bounded (initial_fetch_timeout); [Compiler.Deadline] and [Compiler.Expire] give the clock to the caller.
//
// What did not change between two Views is the same pointer. Bodies are kept as
// encoded bytes for dumps and the last-good file; decoded messages are dropped.
// A [Compiler] has one owner and is not safe for concurrent use. It starts no goroutine and has no clock.
package compile
