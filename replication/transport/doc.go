// Package transport carries everything that the nodes of a cluster say to each other over one TCP port each: the streams of
// every Raft group, and calls of our own.
//
// # Connections
//
// A connection begins with TLS (see Security), then a hello of the dialler that names the protocol's version, the cluster,
// the kind of connection and, for a stream of Raft, the group. The acceptor answers with one byte that lets the dialler go on,
// or with the reason why not. After that a stream belongs to its group's raft.StreamLayer, and a connection for calls carries
// frames (see frame.go). Nothing of a call is written before the acceptor has agreed, so a refused dial has no effect.
//
// # Calls
//
// Calls to one node share two connections: one for small requests (up to 64 KiB) and one for large ones. Requests go from
// the dialler to the acceptor and replies the other way, each under the id of its call and in any order. What is longer than
// a chunk goes in chunks, which take turns with each other and let every small message by; so a large one delays a
// small one by a chunk and what the kernel has in its buffers, not by its own length.
//
// What a caller must know about a call that failed is whether it may have had an effect. It certainly had none under
// ErrUnreachable; it may have had one under ErrUnknown; and any other error is the handler's own answer.
//
// # Locks
//
// Transport.mu comes before lane.mu. No others are held together.
package transport
