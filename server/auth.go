package server

import (
	"bytes"
	"crypto/sha256"
	"crypto/subtle"

	"github.com/valyala/fasthttp"
)

// permission is what a route asks for and what a key grants. Each includes the ones before it. The zero value is none, so
// that a route that forgot to declare one is refused to everyone.
type permission uint8

const (
	permissionOpen   permission = iota + 1 // no key needed
	permissionRead                         // read points and settings
	permissionWrite                        // change points
	permissionManage                       // change collections and aliases
)

func (p permission) String() string {
	return [...]string{"undeclared", "open", "read", "write", "manage"}[p]
}

// keys checks credentials. It keeps digests, which makes comparing take the same time for keys of any length.
type keys struct {
	full, readOnly       [sha256.Size]byte
	hasFull, hasReadOnly bool
}

func newKeys(full, readOnly string) keys {
	return keys{
		full: sha256.Sum256([]byte(full)), hasFull: full != "",
		readOnly: sha256.Sum256([]byte(readOnly)), hasReadOnly: readOnly != "",
	}
}

// asked reports whether a key is needed at all.
func (k *keys) asked() bool { return k.hasFull || k.hasReadOnly }

// grant returns what the credential in a request's header permits.
func (k *keys) grant(h *fasthttp.RequestHeader) permission {
	if !k.asked() {
		return permissionManage
	}
	key, ok := credential(h)
	if !ok {
		return permissionOpen
	}
	digest := sha256.Sum256(key)
	full := subtle.ConstantTimeCompare(digest[:], k.full[:]) == 1 && k.hasFull
	readOnly := subtle.ConstantTimeCompare(digest[:], k.readOnly[:]) == 1 && k.hasReadOnly
	switch {
	case full:
		return permissionManage
	case readOnly:
		return permissionRead
	}
	return permissionOpen
}

// credential returns the key that a request carries, as the header api-key or as a bearer token.
func credential(h *fasthttp.RequestHeader) (key []byte, ok bool) {
	if key := h.Peek("Api-Key"); len(key) > 0 {
		return key, true
	}
	const scheme = "Bearer "
	value := h.Peek(fasthttp.HeaderAuthorization)
	if len(value) > len(scheme) && bytes.EqualFold(value[:len(scheme)], []byte(scheme)) {
		return value[len(scheme):], true
	}
	return nil, false
}

// authorize returns the refusal for a request without the permission that its route asks for.
func (s *Server) authorize(h *fasthttp.RequestHeader, needed permission) error {
	granted := s.keys.grant(h)
	switch {
	case needed >= permissionOpen && granted >= needed:
		return nil
	case granted > permissionOpen:
		return &refusal{status: fasthttp.StatusForbidden, text: "Forbidden: the key does not permit to " + needed.String(),
			reason: reasonForbidden}
	}
	text := "Must provide an API key or an Authorization bearer token"
	if _, ok := credential(h); ok {
		text = "Invalid API key or token"
	}
	return &refusal{status: fasthttp.StatusUnauthorized, text: text, plain: true, reason: reasonUnauthenticated}
}
