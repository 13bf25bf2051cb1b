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
	scope  scope // what for
	handle handler
}

// routes is the whole API. {name} is a collection or an alias, {id} a point, {snapshot} a file, and {queue}, {task}, {agent} and
// {key} are the scheduler's, the last one of a state; {peer} is a node. Each line says which permission a caller needs,
// and for what. A handler whose body names further collections asks request.authorize for each of them.
var routes = []route{
	{"GET", "/", permissionOpen, scopeServer, (*Server).getRoot},
	{"GET", "/healthz", permissionOpen, scopeServer, (*Server).getHealth},
	{"GET", "/livez", permissionOpen, scopeServer, (*Server).getHealth},
	{"GET", "/readyz", permissionOpen, scopeServer, (*Server).getReady},
	{"GET", "/metrics", permissionRead, scopeServer, (*Server).getMetrics},
	{"GET", "/openapi.json", permissionOpen, scopeServer, (*Server).getDescription},
	{"GET", "/telemetry", permissionRead, scopeServer, (*Server).getTelemetry},
	{"GET", "/issues", permissionRead, scopeServer, (*Server).listIssues},
	{"DELETE", "/issues", permissionManage, scopeServer, (*Server).clearIssues},

	{"POST", mcpPath, permissionRead, scopeListed, byLeader((*Server).serveMCP)},

	{"GET", "/backup", permissionManage, scopeServer, (*Server).getBackup},
	{"GET", "/cluster", permissionRead, scopeServer, (*Server).getCluster},
	{"GET", "/cluster/peers", permissionRead, scopeServer, (*Server).listPeers},
	{"DELETE", "/cluster/peer/{peer}", permissionManage, scopeServer, (*Server).removePeer},
	{"POST", "/cluster/leader", permissionManage, scopeServer, (*Server).transferLeadership},
	{"GET", "/collections/{name}/cluster", permissionRead, scopeCollection, (*Server).getCollectionCluster},
	{"POST", "/collections/{name}/cluster", permissionManage, scopeCollection, (*Server).updateCollectionCluster},

	{"GET", "/collections", permissionRead, scopeListed, (*Server).listCollections},
	{"GET", "/collections/{name}", permissionRead, scopeCollection, (*Server).getCollection},
	{"GET", "/collections/{name}/exists", permissionRead, scopeCollection, (*Server).collectionExists},
	{"PUT", "/collections/{name}", permissionManage, scopeCollection, (*Server).createCollection},
	{"PATCH", "/collections/{name}", permissionManage, scopeCollection, (*Server).updateCollection},
	{"DELETE", "/collections/{name}", permissionManage, scopeCollection, (*Server).deleteCollection},

	{"GET", "/aliases", permissionRead, scopeListed, (*Server).listAliases},
	{"GET", "/collections/{name}/aliases", permissionRead, scopeCollection, (*Server).listCollectionAliases},
	{"POST", "/collections/aliases", permissionManage, scopeServer, (*Server).updateAliases},

	{"PUT", "/collections/{name}/index", permissionMaintain, scopeCollection, (*Server).createFieldIndex},
	{"DELETE", "/collections/{name}/index/{field}", permissionMaintain, scopeCollection, (*Server).deleteFieldIndex},

	{"PUT", "/collections/{name}/vectors/{vector}", permissionManage, scopeCollection, (*Server).createVectorName},
	{"DELETE", "/collections/{name}/vectors/{vector}", permissionManage, scopeCollection, (*Server).deleteVectorName},

	{"PUT", "/collections/{name}/points", permissionWrite, scopeCollection, write(decodeUpsert)},
	{"PUT", "/collections/{name}/points/vectors", permissionWrite, scopeCollection, write(decodeUpdateVectors)},
	{"POST", "/collections/{name}/points/vectors/delete", permissionWrite, scopeCollection, write(decodeDeleteVectors)},
	{"POST", "/collections/{name}/points/delete", permissionWrite, scopeCollection, write(decodeDelete)},
	{"POST", "/collections/{name}/points/payload", permissionWrite, scopeCollection, write(decodeSetPayload)},
	{"PUT", "/collections/{name}/points/payload", permissionWrite, scopeCollection, write(decodeOverwritePayload)},
	{"POST", "/collections/{name}/points/payload/delete", permissionWrite, scopeCollection, write(decodeDeletePayload)},
	{"POST", "/collections/{name}/points/payload/clear", permissionWrite, scopeCollection, write(decodeClearPayload)},
	{"POST", "/collections/{name}/points/batch", permissionWrite, scopeCollection, (*Server).writeBatch},

	{"POST", "/collections/{name}/points", permissionRead, scopeCollection, (*Server).retrieve},
	{"GET", "/collections/{name}/points/{id}", permissionRead, scopeCollection, (*Server).getPoint},
	{"POST", "/collections/{name}/points/scroll", permissionRead, scopeCollection, (*Server).scroll},
	{"POST", "/collections/{name}/points/count", permissionRead, scopeCollection, (*Server).count},
	{"POST", "/collections/{name}/points/query", permissionRead, scopeCollection, (*Server).query},
	{"POST", "/collections/{name}/points/query/batch", permissionRead, scopeCollection, (*Server).queryBatch},
	{"POST", "/collections/{name}/points/search", permissionRead, scopeCollection, (*Server).search},
	{"POST", "/collections/{name}/points/search/batch", permissionRead, scopeCollection, (*Server).searchBatch},
	{"POST", "/collections/{name}/points/query/groups", permissionRead, scopeCollection, (*Server).queryGroups},
	{"POST", "/collections/{name}/points/search/groups", permissionRead, scopeCollection, (*Server).searchGroups},
	{"POST", "/collections/{name}/points/recommend", permissionRead, scopeCollection, (*Server).recommend},
	{"POST", "/collections/{name}/points/recommend/batch", permissionRead, scopeCollection, (*Server).recommendBatch},
	{"POST", "/collections/{name}/points/recommend/groups", permissionRead, scopeCollection, (*Server).recommendGroups},
	{"POST", "/collections/{name}/points/discover", permissionRead, scopeCollection, (*Server).discover},
	{"POST", "/collections/{name}/points/discover/batch", permissionRead, scopeCollection, (*Server).discoverBatch},
	{"POST", "/collections/{name}/points/search/matrix/pairs", permissionRead, scopeCollection, (*Server).matrixPairs},
	{"POST", "/collections/{name}/points/search/matrix/offsets", permissionRead, scopeCollection, (*Server).matrixOffsets},
	{"POST", "/collections/{name}/facet", permissionRead, scopeCollection, (*Server).facet},

	{"PUT", "/collections/{name}/memories", permissionWrite, scopeCollection, byLeader((*Server).storeMemories)},
	{"POST", "/collections/{name}/memories/search", permissionRead, scopeCollection, (*Server).searchMemories},
	{"POST", "/collections/{name}/memories/touch", permissionWrite, scopeCollection, byLeader((*Server).touchMemories)},
	{"POST", "/collections/{name}/memories/delete", permissionWrite, scopeCollection, byLeader((*Server).forgetMemories)},

	{"GET", "/collections/{name}/snapshots", permissionRead, scopeCollection, (*Server).listSnapshots},
	{"POST", "/collections/{name}/snapshots", permissionMaintain, scopeCollection, (*Server).createSnapshot},
	{"GET", "/collections/{name}/snapshots/{snapshot}", permissionRead, scopeCollection, (*Server).getSnapshot},
	{"DELETE", "/collections/{name}/snapshots/{snapshot}", permissionMaintain, scopeCollection, (*Server).deleteSnapshot},
	{"PUT", "/collections/{name}/snapshots/recover", permissionManage, scopeCollection, (*Server).recoverSnapshot},
	{"POST", "/collections/{name}" + uploadPath, permissionManage, scopeCollection, (*Server).uploadSnapshot},
	{"GET", "/queues", permissionRead, scopeServer, scheduled((*Server).listQueues)},
	{"GET", "/queues/{queue}", permissionRead, scopeServer, scheduled((*Server).getQueue)},
	{"PUT", "/queues/{queue}", permissionMaintain, scopeServer, scheduled((*Server).putQueue)},
	{"PATCH", "/queues/{queue}", permissionMaintain, scopeServer, scheduled((*Server).patchQueue)},
	{"DELETE", "/queues/{queue}", permissionManage, scopeServer, scheduled((*Server).deleteQueue)},
	{"POST", "/queues/{queue}/tasks", permissionWrite, scopeServer, scheduled((*Server).submit)},
	{"POST", "/queues/{queue}/tasks/lease", permissionWrite, scopeServer, scheduled((*Server).lease)},
	{"GET", "/queues/{queue}/dead_letters", permissionRead, scopeServer, scheduled((*Server).listDeadLetters)},
	{"POST", "/queues/{queue}/dead_letters/redrive", permissionMaintain, scopeServer, scheduled((*Server).redrive)},

	{"POST", "/tasks/lease", permissionWrite, scopeServer, scheduled((*Server).lease)},
	{"POST", "/tasks/heartbeat", permissionWrite, scopeServer, scheduled((*Server).heartbeatTasks)},
	{"POST", "/tasks/scroll", permissionRead, scopeServer, scheduled((*Server).scrollTasks)},
	{"POST", "/tasks/count", permissionRead, scopeServer, scheduled((*Server).countTasks)},
	{"GET", "/tasks/{task}", permissionRead, scopeServer, scheduled((*Server).getTask)},
	{"POST", "/tasks/{task}/heartbeat", permissionWrite, scopeServer, scheduled(taskCall(decodeHeartbeat))},
	{"POST", "/tasks/{task}/complete", permissionWrite, scopeServer, scheduled(taskCall(decodeComplete))},
	{"POST", "/tasks/{task}/fail", permissionWrite, scopeServer, scheduled(taskCall(decodeFail))},
	{"POST", "/tasks/{task}/release", permissionWrite, scopeServer, scheduled(taskCall(decodeRelease))},
	{"POST", "/tasks/{task}/input", permissionWrite, scopeServer, scheduled((*Server).giveInput)},
	{"POST", "/tasks/{task}/cancel", permissionWrite, scopeServer, scheduled((*Server).cancelTask)},
	{"GET", "/tasks/{task}/result", permissionRead, scopeServer, scheduled((*Server).getTaskResult)},
	{"GET", "/tasks/{task}/events", permissionRead, scopeServer, here((*Server).taskEvents)},
	{"GET", "/tasks/{task}/route", permissionRead, scopeServer, scheduled((*Server).getDecisions)},
	{"GET", "/events", permissionRead, scopeServer, here((*Server).events)},

	{"GET", "/agents", permissionRead, scopeServer, scheduled((*Server).listAgents)},
	{"GET", "/agents/{agent}", permissionRead, scopeServer, scheduled((*Server).getAgent)},
	{"PUT", "/agents/{agent}", permissionMaintain, scopeServer, scheduled((*Server).putAgent)},
	{"DELETE", "/agents/{agent}", permissionMaintain, scopeServer, scheduled(removeAgent)},
	{"POST", "/agents/{agent}/heartbeat", permissionWrite, scopeServer, scheduled((*Server).heartbeatAgent)},
	{"POST", "/agents/{agent}/drain", permissionMaintain, scopeServer, scheduled(drainAgent)},
	{"POST", "/agents/{agent}/resume", permissionMaintain, scopeServer, scheduled(resumeAgent)},
	{"POST", "/route", permissionRead, scopeServer, scheduled((*Server).routeTask)},

	{"GET", "/pools", permissionRead, scopeServer, (*Server).listPools},
	{"PUT", "/pools/{pool}", permissionManage, scopeServer, ofPool(putPool)},
	{"DELETE", "/pools/{pool}", permissionManage, scopeServer, ofPool(removePool)},
	{"POST", "/pools/{pool}/scale", permissionManage, scopeServer, ofPool(scalePool)},

	{"GET", "/states", permissionRead, scopeServer, scheduled((*Server).listStates)},
	{"GET", "/states/{key}", permissionRead, scopeServer, scheduled((*Server).getState)},
	{"PUT", "/states/{key}", permissionWrite, scopeServer, scheduled((*Server).putState)},
	{"DELETE", "/states/{key}", permissionWrite, scopeServer, scheduled((*Server).deleteState)},

	{"GET", "/snapshots", permissionManage, scopeServer, (*Server).listSnapshots},
	{"POST", "/snapshots", permissionManage, scopeServer, (*Server).createSnapshot},
	{"GET", "/snapshots/{snapshot}", permissionManage, scopeServer, (*Server).getSnapshot},
	{"DELETE", "/snapshots/{snapshot}", permissionManage, scopeServer, (*Server).deleteSnapshot},
}

// The routes of requests that match none of the table. They ask for the permission to read something, so that a
// stranger learns nothing, not even what is missing.
var (
	noSuchRoute  = route{"other", "other", permissionRead, scopeListed, (*Server).notFound}
	noSuchMethod = route{"other", "other", permissionRead, scopeListed, (*Server).methodNotAllowed}
)

func (s *Server) newRouter() *router.Router {
	r := router.New()
	r.RedirectTrailingSlash = false
	r.RedirectFixedPath = false
	r.HandleOPTIONS = false
	s.routeMetrics = make([]*routeMetrics, len(routes))
	for i := range routes {
		m := &routeMetrics{all: s.metrics, route: &routes[i]}
		s.routeMetrics[i] = m
		r.Handle(routes[i].method, routes[i].path, s.handlerOf(m))
	}
	r.NotFound = s.handlerOf(&routeMetrics{all: s.metrics, route: &noSuchRoute})
	r.MethodNotAllowed = s.handlerOf(&routeMetrics{all: s.metrics, route: &noSuchMethod})
	return r
}

func (s *Server) handlerOf(m *routeMetrics) fasthttp.RequestHandler {
	return func(ctx *fasthttp.RequestCtx) { s.serveRoute(m.route, m, ctx) }
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
	origin := string(ctx.Request.Header.Peek(fasthttp.HeaderOrigin))
	if origin != "" && s.mayCross(origin) {
		if isPreflight(ctx) {
			answerPreflight(ctx)
		} else {
			s.router.Handler(ctx)
		}
		allowOrigin(&ctx.Response, origin)
		return
	}
	s.router.Handler(ctx)
}
