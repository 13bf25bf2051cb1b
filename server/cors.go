package server

import (
	"slices"

	"github.com/valyala/fasthttp"
)

// A browser says in the header Origin which site's page makes a request to another one. Some such requests, say a POST of text,
// are sent without asking the server first, and a server without a key would obey: a page anywhere could write to it by way
// of someone who runs it on their own machine. So a request with an Origin is refused unless that one is allowed.

// anyOrigin stands for every origin in Options.CORSOrigins.
const anyOrigin = "*"

// preflightSeconds is how long a browser may keep the answer to its question whether it may send a request.
const preflightSeconds = "600"

func (s *Server) mayCross(origin string) bool {
	return slices.Contains(s.options.CORSOrigins, anyOrigin) || slices.Contains(s.options.CORSOrigins, origin)
}

// checkOrigin returns the refusal for a request that a page of another site makes.
func (r *request) checkOrigin(rt *route) error {
	origin := r.http.Request.Header.Peek(fasthttp.HeaderOrigin)
	if len(origin) == 0 || r.server.mayCross(string(origin)) {
		return nil
	}
	if rt.path == mcpPath && isOwnOrigin(string(origin), string(r.http.Host())) {
		return nil
	}
	return &refusal{status: fasthttp.StatusForbidden, reason: reasonForbidden,
		text: "Forbidden: requests by pages of " + excerpt(origin) + " are not allowed; the server's --cors says whose are"}
}

// isPreflight reports whether a browser asks whether it may send a request.
func isPreflight(ctx *fasthttp.RequestCtx) bool {
	return ctx.IsOptions() && len(ctx.Request.Header.Peek(fasthttp.HeaderAccessControlRequestMethod)) > 0
}

// answerPreflight says yes: what a request may do is up to its key, not to its method and headers.
func answerPreflight(ctx *fasthttp.RequestCtx) {
	h := &ctx.Response.Header
	h.SetBytesV(fasthttp.HeaderAccessControlAllowMethods, ctx.Request.Header.Peek(fasthttp.HeaderAccessControlRequestMethod))
	h.SetBytesV(fasthttp.HeaderAccessControlAllowHeaders, ctx.Request.Header.Peek(fasthttp.HeaderAccessControlRequestHeaders))
	h.Set(fasthttp.HeaderAccessControlMaxAge, preflightSeconds)
	ctx.SetStatusCode(fasthttp.StatusNoContent)
}

// allowOrigin lets the page read the answer.
func allowOrigin(response *fasthttp.Response, origin string) {
	response.Header.Set(fasthttp.HeaderAccessControlAllowOrigin, origin)
	response.Header.Set(fasthttp.HeaderAccessControlExposeHeaders, fasthttp.HeaderRetryAfter)
	response.Header.Add(fasthttp.HeaderVary, fasthttp.HeaderOrigin)
}
