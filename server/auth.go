package server

import (
	"bytes"

	"github.com/valyala/fasthttp"

	"github.com/vectord/vectord/internal/token"
)

// permission is what a route asks for and what a credential grants. Each includes the ones before it. The zero value is
// none, so that a route that forgot to declare one is refused to everyone.
type permission uint8

const (
	permissionOpen     permission = iota + 1 // no key needed
	permissionRead                           // read points and settings
	permissionWrite                          // change points
	permissionMaintain                       // make and drop payload indexes and snapshots
	permissionManage                         // change collections and aliases
)

func (p permission) String() string {
	return [...]string{"undeclared", "open", "read", "write", "maintain", "manage"}[p]
}

// permissionOf says what each access of a token grants.
var permissionOf = [...]permission{
	token.None:        permissionOpen,
	token.Read:        permissionRead,
	token.WritePoints: permissionWrite,
	token.Write:       permissionMaintain,
	token.Manage:      permissionManage,
}

// scope says what a route's permission is needed for. The zero value is none, so that a route that forgot to declare one is
// refused to everyone.
type scope uint8

const (
	scopeServer     scope = iota + 1 // everything that the server has: opening single collections is not enough
	scopeCollection                  // the collection {name} of the path

	// scopeListed is for routes that list collections or what belongs to them: they are open to whoever may read
	// anything, and the handler leaves out what the caller may not read.
	scopeListed
)

// caller is who makes a request, as far as the credential tells. The zero value may do nothing.
type caller struct {
	credential string // what kind it is, for texts and the log; never itself
	subject    string // of a token that names one
	everywhere permission
	only       []token.Collection // what else the caller may do, collection by collection
}

// may reports whether the caller has permission p for a collection, given by its own name.
func (c *caller) may(p permission, collection string) bool {
	if c.everywhere >= p {
		return true
	}
	for i := range c.only {
		if c.only[i].Name == collection {
			return permissionOf[c.only[i].Access] >= p
		}
	}
	return false
}

// denial says why a caller was not let in. It is an error of its own, and not a vectord.Error, because nothing that the
// engine does leads to it. Each door to the server turns it into its own form of answer.
type denial struct {
	kind denialKind
	text string
}

func (d *denial) Error() string { return d.text }

type denialKind uint8

const (
	denialNoKey     denialKind = iota + 1 // no key, or a wrong one
	denialBadToken                        // a token that is not valid, or not valid any more
	denialForbidden                       // what the credential does not permit
)

// refusal is the denial as an answer over HTTP.
func (d *denial) refusal() *refusal {
	switch d.kind {
	case denialNoKey:
		return &refusal{status: fasthttp.StatusUnauthorized, text: d.text, plain: true, reason: reasonUnauthenticated}
	case denialBadToken:
		return &refusal{status: fasthttp.StatusForbidden, text: d.text, plain: true, reason: reasonUnauthenticated}
	default:
		return &refusal{status: fasthttp.StatusForbidden, text: "Forbidden: " + d.text, reason: reasonForbidden}
	}
}

// credential returns the key or token that a request carries, in the header api-key or as a bearer token, or nothing.
func credential(h *fasthttp.RequestHeader) string {
	if key := h.Peek("Api-Key"); len(key) > 0 {
		return string(key)
	}
	const scheme = "Bearer "
	value := h.Peek(fasthttp.HeaderAuthorization)
	if len(value) > len(scheme) && bytes.EqualFold(value[:len(scheme)], []byte(scheme)) {
		return string(value[len(scheme):])
	}
	return ""
}

// admit finds out who asks and whether they may. It has the path parsed on the way, and nothing else of the request read.
func (r *request) admit(rt *route) (err error) {
	if err := r.checkOrigin(); err != nil {
		return err
	}
	if rt.needs == permissionOpen {
		return nil
	}
	a := &r.server.authorizer
	if r.caller, err = a.authenticate(credential(&r.http.Request.Header)); err != nil {
		return err
	}
	if err := r.parsePath(); err != nil {
		return err
	}
	name, err := a.authorize(&r.caller, rt.needs, rt.scope, r.collection)
	if err != nil {
		return err
	}
	r.collection = name
	return nil
}

// authorize checks the caller's permission for a collection that a body names, besides the one of the path, and returns the
// name to go on with (see authorizer.authorize).
func (r *request) authorize(collection string, needed permission) (name string, err error) {
	return r.server.authorizer.authorize(&r.caller, needed, scopeCollection, collection)
}
