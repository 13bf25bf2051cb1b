package server

import (
	"github.com/fasthttp/router"
	"github.com/valyala/fasthttp"
)

// handler serves one route: it reads what it needs from r and appends the result to r.out.
type handler func(s *Server, r *request) error

// route is one line of the API.
type route struct {
	method string
	path   string
	needs  permission
	handle handler
}

// routes is the whole API. {name} is a collection or an alias, {id} a point, {snapshot} a file.
var routes = []route{
	{"GET", "/", permissionOpen, (*Server).getRoot},
	{"GET", "/healthz", permissionOpen, (*Server).getHealth},
	{"GET", "/livez", permissionOpen, (*Server).getHealth},
	{"GET", "/readyz", permissionOpen, (*Server).getReady},
	{"GET", "/metrics", permissionRead, (*Server).getMetrics},

	{"GET", "/collections", permissionRead, (*Server).listCollections},
	{"GET", "/collections/{name}", permissionRead, (*Server).getCollection},
	{"GET", "/collections/{name}/exists", permissionRead, (*Server).collectionExists},
	{"PUT", "/collections/{name}", permissionManage, (*Server).createCollection},
	{"PATCH", "/collections/{name}", permissionManage, (*Server).updateCollection},
	{"DELETE", "/collections/{name}", permissionManage, (*Server).deleteCollection},

	{"GET", "/aliases", permissionRead, (*Server).listAliases},
	{"GET", "/collections/{name}/aliases", permissionRead, (*Server).listCollectionAliases},
	{"POST", "/collections/aliases", permissionManage, (*Server).updateAliases},

	{"PUT", "/collections/{name}/points", permissionWrite, write(decodeUpsert)},
	{"PUT", "/collections/{name}/points/vectors", permissionWrite, write(decodeUpdateVectors)},
	{"POST", "/collections/{name}/points/delete", permissionWrite, write(decodeDelete)},
	{"POST", "/collections/{name}/points/payload", permissionWrite, write(decodeSetPayload)},
	{"PUT", "/collections/{name}/points/payload", permissionWrite, write(decodeOverwritePayload)},
	{"POST", "/collections/{name}/points/payload/delete", permissionWrite, write(decodeDeletePayload)},
	{"POST", "/collections/{name}/points/payload/clear", permissionWrite, write(decodeClearPayload)},
	{"POST", "/collections/{name}/points/batch", permissionWrite, (*Server).writeBatch},

	{"POST", "/collections/{name}/points", permissionRead, (*Server).retrieve},
	{"GET", "/collections/{name}/points/{id}", permissionRead, (*Server).getPoint},
	{"POST", "/collections/{name}/points/scroll", permissionRead, (*Server).scroll},
	{"POST", "/collections/{name}/points/count", permissionRead, (*Server).count},
	{"POST", "/collections/{name}/points/query", permissionRead, (*Server).query},
	{"POST", "/collections/{name}/points/query/batch", permissionRead, (*Server).queryBatch},
	{"POST", "/collections/{name}/points/search", permissionRead, (*Server).search},
	{"POST", "/collections/{name}/points/search/batch", permissionRead, (*Server).searchBatch},

	{"GET", "/collections/{name}/snapshots", permissionRead, (*Server).listSnapshots},
	{"POST", "/collections/{name}/snapshots", permissionWrite, (*Server).createSnapshot},
	{"GET", "/collections/{name}/snapshots/{snapshot}", permissionRead, (*Server).getSnapshot},
	{"DELETE", "/collections/{name}/snapshots/{snapshot}", permissionWrite, (*Server).deleteSnapshot},
	{"PUT", "/collections/{name}/snapshots/recover", permissionManage, (*Server).recoverSnapshot},
	{"POST", "/collections/{name}" + uploadPath, permissionManage, (*Server).uploadSnapshot},
	{"GET", "/snapshots", permissionManage, (*Server).listSnapshots},
	{"POST", "/snapshots", permissionManage, (*Server).createSnapshot},
	{"GET", "/snapshots/{snapshot}", permissionManage, (*Server).getSnapshot},
	{"DELETE", "/snapshots/{snapshot}", permissionManage, (*Server).deleteSnapshot},
}

// The routes of requests that match none of the table. They ask for the permission to read, so that a stranger learns
// nothing, not even what is missing.
var (
	noSuchRoute  = route{"other", "other", permissionRead, (*Server).notFound}
	noSuchMethod = route{"other", "other", permissionRead, (*Server).methodNotAllowed}
)

func (s *Server) newRouter() *router.Router {
	r := router.New()
	r.RedirectTrailingSlash = false
	r.RedirectFixedPath = false
	r.HandleOPTIONS = false
	for i := range routes {
		r.Handle(routes[i].method, routes[i].path, s.handlerOf(&routes[i]))
	}
	r.NotFound = s.handlerOf(&noSuchRoute)
	r.MethodNotAllowed = s.handlerOf(&noSuchMethod)
	return r
}

func (s *Server) handlerOf(rt *route) fasthttp.RequestHandler {
	m := &routeMetrics{all: s.metrics, route: rt}
	return func(ctx *fasthttp.RequestCtx) { s.serveRoute(rt, m, ctx) }
}

// handle is where fasthttp hands over a request. Trailing slashes are trimmed.
func (s *Server) handle(ctx *fasthttp.RequestCtx) {
	uri := ctx.Request.URI()
	if path := uri.PathOriginal(); len(path) > 1 && path[len(path)-1] == '/' {
		for len(path) > 1 && path[len(path)-1] == '/' {
			path = path[:len(path)-1]
		}
		target := append([]byte{}, path...)
		if query := uri.QueryString(); len(query) > 0 {
			target = append(append(target, '?'), query...)
		}
		ctx.Request.SetRequestURIBytes(target)
	}
	s.router.Handler(ctx)
}
