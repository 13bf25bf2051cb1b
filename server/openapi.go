package server

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/vectord/vectord"
)

// operation describes a route to those who use it. Its schemas and parameters are those of openapi.json.
type operation struct {
	tag     string
	summary string
	params  string // names of parameters besides those of the path, separated by blanks
	body    string // schema of the request's body; empty: it has none
	result  string // schema of the result, after "[]" that of its elements

	// bare is the content type of an answer that is not in the envelope: then result, if any, is the schema of all of it.
	bare string
}

// The parameters that groups of operations share.
const (
	writeParams   = "wait ordering timeout idempotency_key"
	readParams    = "consistency timeout"
	settingParams = "timeout"
)

// The tags of operations.
const (
	tagService     = "Service"
	tagCollections = "Collections"
	tagAliases     = "Aliases"
	tagIndexes     = "Payload indexes"
	tagPoints      = "Points"
	tagSearch      = "Search"
	tagSnapshots   = "Snapshots"
	tagCluster     = "Cluster"
)

// operations has a line for every route.
var operations = map[string]operation{
	"GET /":             {tag: tagService, summary: "Name and version", result: "Version", bare: jsonContentType},
	"GET /healthz":      {tag: tagService, summary: "The process lives", bare: plainContentType},
	"GET /livez":        {tag: tagService, summary: "The process lives", bare: plainContentType},
	"GET /readyz":       {tag: tagService, summary: "Requests can be served", bare: plainContentType},
	"GET /metrics":      {tag: tagService, summary: "Metrics in the text format of Prometheus", bare: plainContentType},
	"GET /openapi.json": {tag: tagService, summary: "This description", result: "Description", bare: jsonContentType},
	"GET /telemetry":    {tag: tagService, summary: "What the process tells about itself", params: "details_level anonymize timeout", result: "Telemetry"},
	"GET /issues":       {tag: tagService, summary: "Issues: there are none, see the log", result: "Issues"},
	"DELETE /issues":    {tag: tagService, summary: "Forget the issues", result: "True"},

	"POST /mcp": {tag: tagService, summary: "Model Context Protocol, by streamable HTTP without sessions", body: "Payload", result: "Payload", bare: jsonContentType},

	"GET /cluster":                     {tag: tagCluster, summary: "State of the cluster: a node by itself has none", result: "Cluster"},
	"GET /collections/{name}/cluster":  {tag: tagCluster, summary: "Where the shards are", result: "CollectionCluster"},
	"POST /collections/{name}/cluster": {tag: tagCluster, summary: "Move shards: refused by a node by itself", params: settingParams, body: "Payload", result: "True"},

	"GET /collections":               {tag: tagCollections, summary: "Names of collections", result: "Collections"},
	"GET /collections/{name}":        {tag: tagCollections, summary: "Settings and state", result: "CollectionInfo"},
	"GET /collections/{name}/exists": {tag: tagCollections, summary: "Whether there is such a collection or alias", result: "Exists"},
	"PUT /collections/{name}":        {tag: tagCollections, summary: "Create", params: settingParams, body: "CreateCollection", result: "True"},
	"PATCH /collections/{name}":      {tag: tagCollections, summary: "Change settings", params: settingParams, body: "UpdateCollection", result: "True"},
	"DELETE /collections/{name}":     {tag: tagCollections, summary: "Delete; false if there was none", params: settingParams, result: "Bool"},

	"GET /aliases":                    {tag: tagAliases, summary: "All aliases", result: "Aliases"},
	"GET /collections/{name}/aliases": {tag: tagAliases, summary: "Aliases of a collection", result: "Aliases"},
	"POST /collections/aliases":       {tag: tagAliases, summary: "Create, rename and delete, all or none", params: settingParams, body: "AliasActions", result: "True"},

	"PUT /collections/{name}/index":            {tag: tagIndexes, summary: "Create", params: "wait ordering timeout", body: "CreateFieldIndex", result: "UpdateResult"},
	"DELETE /collections/{name}/index/{field}": {tag: tagIndexes, summary: "Delete", params: "wait ordering timeout", result: "UpdateResult"},

	"PUT /collections/{name}/vectors/{vector}":    {tag: tagCollections, summary: "Add a name of vectors", params: "wait ordering timeout", body: "NewVectors", result: "UpdateResult"},
	"DELETE /collections/{name}/vectors/{vector}": {tag: tagCollections, summary: "Drop a name, with the vectors of it", params: "wait ordering timeout", result: "UpdateResult"},

	"PUT /collections/{name}/points":                        {tag: tagPoints, summary: "Write points whole", params: writeParams, body: "Upsert", result: "UpdateResult"},
	"PUT /collections/{name}/points/vectors":                {tag: tagPoints, summary: "Write vectors, which others stay beside", params: writeParams, body: "UpdateVectors", result: "UpdateResult"},
	"POST /collections/{name}/points/vectors/delete":        {tag: tagPoints, summary: "Delete vectors by name", params: writeParams, body: "DeleteVectors", result: "UpdateResult"},
	"POST /collections/{name}/points/delete":                {tag: tagPoints, summary: "Delete points", params: writeParams, body: "PointSelector", result: "UpdateResult"},
	"POST /collections/{name}/points/payload":               {tag: tagPoints, summary: "Merge into payloads", params: writeParams, body: "SetPayload", result: "UpdateResult"},
	"PUT /collections/{name}/points/payload":                {tag: tagPoints, summary: "Replace payloads", params: writeParams, body: "SetPayload", result: "UpdateResult"},
	"POST /collections/{name}/points/payload/delete":        {tag: tagPoints, summary: "Remove payload keys", params: writeParams, body: "DeletePayload", result: "UpdateResult"},
	"POST /collections/{name}/points/payload/clear":         {tag: tagPoints, summary: "Remove payloads", params: writeParams, body: "PointSelector", result: "UpdateResult"},
	"POST /collections/{name}/points/batch":                 {tag: tagPoints, summary: "Several writes, in order", params: writeParams, body: "WriteBatch", result: "[]UpdateResult"},
	"POST /collections/{name}/points":                       {tag: tagPoints, summary: "Points by ids", params: readParams, body: "Retrieve", result: "[]Record"},
	"GET /collections/{name}/points/{id}":                   {tag: tagPoints, summary: "One point", params: readParams, result: "Record"},
	"POST /collections/{name}/points/scroll":                {tag: tagPoints, summary: "A page of points", params: readParams, body: "Scroll", result: "ScrollPage"},
	"POST /collections/{name}/points/count":                 {tag: tagPoints, summary: "Number of points that match", params: readParams, body: "Count", result: "Counted"},
	"POST /collections/{name}/points/query":                 {tag: tagSearch, summary: "Search", params: readParams, body: "QueryRequest", result: "QueryResult"},
	"POST /collections/{name}/points/query/batch":           {tag: tagSearch, summary: "Several searches", params: readParams, body: "QueryBatch", result: "[]QueryResult"},
	"POST /collections/{name}/points/search":                {tag: tagSearch, summary: "Search, in its older form", params: readParams, body: "Search", result: "Hits"},
	"POST /collections/{name}/points/search/batch":          {tag: tagSearch, summary: "Several searches, in their older form", params: readParams, body: "SearchBatch", result: "[]Hits"},
	"POST /collections/{name}/points/query/groups":          {tag: tagSearch, summary: "The best groups of points", params: readParams, body: "QueryGroups", result: "Groups"},
	"POST /collections/{name}/points/search/groups":         {tag: tagSearch, summary: "The best groups of points, in its older form", params: readParams, body: "SearchGroups", result: "Groups"},
	"POST /collections/{name}/points/recommend":             {tag: tagSearch, summary: "Points like examples, in its older form", params: readParams, body: "Recommend", result: "Hits"},
	"POST /collections/{name}/points/recommend/batch":       {tag: tagSearch, summary: "Several of these", params: readParams, body: "RecommendBatch", result: "[]Hits"},
	"POST /collections/{name}/points/recommend/groups":      {tag: tagSearch, summary: "The best groups of points like examples, in its older form", params: readParams, body: "RecommendGroups", result: "Groups"},
	"POST /collections/{name}/points/discover":              {tag: tagSearch, summary: "Points near a target or in a context, in its older form", params: readParams, body: "Discover", result: "Hits"},
	"POST /collections/{name}/points/discover/batch":        {tag: tagSearch, summary: "Several of these", params: readParams, body: "DiscoverBatch", result: "[]Hits"},
	"POST /collections/{name}/points/search/matrix/pairs":   {tag: tagSearch, summary: "Which points of a sample are near to which", params: readParams, body: "Matrix", result: "MatrixPairs"},
	"POST /collections/{name}/points/search/matrix/offsets": {tag: tagSearch, summary: "The same, by their places in the sample", params: readParams, body: "Matrix", result: "MatrixOffsets"},
	"POST /collections/{name}/facet":                        {tag: tagSearch, summary: "How many points have each value", params: readParams, body: "Facet", result: "FacetHits"},

	"GET /collections/{name}/snapshots":               {tag: tagSnapshots, summary: "Snapshots of a collection", result: "[]Snapshot"},
	"POST /collections/{name}/snapshots":              {tag: tagSnapshots, summary: "Make one", params: "wait", result: "Snapshot"},
	"GET /collections/{name}/snapshots/{snapshot}":    {tag: tagSnapshots, summary: "The file", bare: fileContentType},
	"DELETE /collections/{name}/snapshots/{snapshot}": {tag: tagSnapshots, summary: "Delete one", params: "wait", result: "True"},
	"PUT /collections/{name}/snapshots/recover":       {tag: tagSnapshots, summary: "Replace the collection by a snapshot", params: "wait", body: "RecoverSnapshot", result: "True"},
	"POST /collections/{name}" + uploadPath:           {tag: tagSnapshots, summary: "Replace the collection by the snapshot in the body", params: "wait checksum priority", body: "UploadSnapshot", result: "True"},
	"GET /snapshots":                                  {tag: tagSnapshots, summary: "Snapshots of the node", result: "[]Snapshot"},
	"POST /snapshots":                                 {tag: tagSnapshots, summary: "Make one of the node", params: "wait", result: "Snapshot"},
	"GET /snapshots/{snapshot}":                       {tag: tagSnapshots, summary: "The file", bare: fileContentType},
	"DELETE /snapshots/{snapshot}":                    {tag: tagSnapshots, summary: "Delete one of the node", params: "wait", result: "True"},
}

// The content types of a description, which has them without parameters.
const (
	plainContentType = "text/plain"
	fileContentType  = "application/octet-stream"
	formContentType  = "multipart/form-data"
)

// openapiComponents are the parts that operations are described with.
//
//go:embed openapi.json
var openapiComponents []byte

// describeAPI returns the OpenAPI description of routes.
func describeAPI() []byte {
	var doc map[string]any
	if err := json.Unmarshal(openapiComponents, &doc); err != nil {
		panic(fmt.Sprintf("openapi.json: %v", err))
	}
	doc["openapi"] = "3.1.0"
	doc["info"] = map[string]any{
		"title": "vectord", "version": vectord.Version, "license": map[string]any{"name": "Apache-2.0", "identifier": "Apache-2.0"},
		"description": "A vector database whose HTTP API Qdrant's clients speak. docs/API.md says what the fields mean and shows each operation.",
	}
	paths := map[string]map[string]any{}
	for i := range routes {
		rt := &routes[i]
		if paths[rt.path] == nil {
			paths[rt.path] = map[string]any{}
		}
		if o, ok := operations[rt.method+" "+rt.path]; ok {
			paths[rt.path][strings.ToLower(rt.method)] = o.describe(rt)
		}
	}
	doc["paths"] = paths
	out, err := json.Marshal(doc)
	if err != nil {
		panic(fmt.Sprintf("describe the API: %v", err))
	}
	return out
}

func (s *Server) getDescription(r *request) error {
	r.text(jsonContentType)
	r.out = append(r.out, s.description()...)
	return nil
}

// describe returns an operation of the description.
func (o *operation) describe(rt *route) map[string]any {
	security := []any{map[string]any{"api-key": []any{}}, map[string]any{"bearer": []any{}}}
	if rt.needs == permissionOpen {
		security = []any{}
	}
	parameters := []any{}
	for segment := range strings.SplitSeq(rt.path, "/") {
		if name, ok := strings.CutPrefix(segment, "{"); ok {
			parameters = append(parameters, component("parameters", strings.TrimSuffix(name, "}")))
		}
	}
	for name := range strings.FieldsSeq(o.params) {
		parameters = append(parameters, component("parameters", name))
	}
	out := map[string]any{
		"operationId": operationID(rt), "tags": []any{o.tag}, "summary": o.summary, "description": "Needs the permission " + rt.needs.String() + ".",
		"security": security, "parameters": parameters, "responses": o.responses(rt),
	}
	if o.body != "" {
		kind := jsonContentType
		if strings.HasSuffix(rt.path, uploadPath) {
			kind = formContentType
		}
		out["requestBody"] = map[string]any{"required": true, "content": content(kind, component("schemas", o.body))}
	}
	return out
}

func (o *operation) responses(rt *route) map[string]any {
	text := map[string]any{"type": "string"}
	result := text
	if list, ok := strings.CutPrefix(o.result, "[]"); ok {
		result = map[string]any{"type": "array", "items": component("schemas", list)}
	} else if o.result != "" {
		result = component("schemas", o.result)
	}
	success := content(o.bare, result)
	if o.bare == "" {
		success = content(jsonContentType, map[string]any{
			"type": "object", "required": []any{"result", "status", "time"}, "properties": map[string]any{
				"result": result, "status": map[string]any{"const": "ok"}, "time": map[string]any{"type": "number", "description": "Seconds."}},
		})
	}
	refused, failed := content(jsonContentType, component("schemas", "Error")), content(jsonContentType, component("schemas", "Error"))
	if rt.needs != permissionOpen { // what a bad key is answered with
		refused[plainContentType] = map[string]any{"schema": text}
	} else if o.bare == plainContentType { // that a probe fails
		failed[plainContentType] = map[string]any{"schema": text}
	}
	out := map[string]any{
		"200": map[string]any{"description": "Done.", "content": success},
		"4XX": map[string]any{"description": "Refused.", "content": refused},
		"5XX": map[string]any{"description": "Failed.", "content": failed},
	}
	if o.tag == tagSnapshots && strings.HasPrefix(o.params, "wait") {
		out["202"] = map[string]any{"description": "Begun, with wait=false.", "content": content(jsonContentType, component("schemas", "Accepted"))}
	}
	if rt.path == mcpPath { // errors are JSON-RPC's, or a line of text
		refused[jsonContentType], refused[plainContentType] = map[string]any{}, map[string]any{"schema": text}
		out["202"] = map[string]any{"description": "A notification was taken."}
	}
	return out
}

// operationID makes a name of a method and a path: getCollectionsNameExists.
func operationID(rt *route) string {
	var b strings.Builder
	b.WriteString(strings.ToLower(rt.method))
	for word := range strings.FieldsFuncSeq(rt.path, func(r rune) bool { return strings.ContainsRune("/{}.", r) }) {
		b.WriteString(strings.ToUpper(word[:1]) + word[1:])
	}
	return b.String()
}

func component(kind, name string) map[string]any {
	return map[string]any{"$ref": "#/components/" + kind + "/" + name}
}

func content(kind string, schema map[string]any) map[string]any {
	return map[string]any{kind: map[string]any{"schema": schema}}
}
