package server

import (
	"bytes"

	"github.com/valyala/fasthttp"

	"github.com/vectord/vectord/internal/access"
)

// A route's permission and scope are those of package access, by shorter names in the table of routes.
type (
	permission = access.Permission
	scope      = access.Scope
)

// See package access.
const (
	permissionOpen     = access.Open
	permissionRead     = access.Read
	permissionWrite    = access.Write
	permissionMaintain = access.Maintain
	permissionManage   = access.Manage

	scopeServer     = access.ScopeServer
	scopeCollection = access.ScopeCollection
	scopeListed     = access.ScopeListed
)

// refusalOf is a denial as an answer over HTTP.
func refusalOf(d *access.Denial) *refusal {
	switch d.Kind {
	case access.NoKey:
		return &refusal{status: fasthttp.StatusUnauthorized, text: d.Text, plain: true, reason: reasonUnauthenticated}
	case access.BadToken:
		return &refusal{status: fasthttp.StatusForbidden, text: d.Text, plain: true, reason: reasonUnauthenticated}
	default:
		return &refusal{status: fasthttp.StatusForbidden, text: "Forbidden: " + d.Text, reason: reasonForbidden}
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
	if err := r.checkOrigin(rt); err != nil {
		return err
	}
	if rt.needs == permissionOpen {
		return nil
	}
	a := r.server.authorizer
	if r.caller, err = a.Authenticate(credential(&r.http.Request.Header)); err != nil {
		return err
	}
	if err := r.parsePath(); err != nil {
		return err
	}
	name, err := a.Authorize(&r.caller, rt.needs, rt.scope, r.collection)
	if err != nil {
		return err
	}
	r.collection = name
	return nil
}

// authorize checks the caller's permission for a collection that a body names, besides the one of the path, and returns the
// name to go on with (see access.Authorizer.Authorize).
func (r *request) authorize(collection string, needed permission) (name string, err error) {
	return r.server.authorizer.Authorize(&r.caller, needed, scopeCollection, collection)
}
