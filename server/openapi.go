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
	writeParams   = "wait ordering timeout idempotency_key session"
	readParams    = "consistency timeout session"
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
	tagMemories    = "Memories"
	tagSnapshots   = "Snapshots"
	tagCluster     = "Cluster"
	tagQueues      = "Queues"
	tagTasks       = "Tasks"
	tagAgents      = "Agents"
	tagStates      = "States"
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

	"GET /backup":                      {tag: tagSnapshots, summary: "The whole state as of now: points, tasks, queues, agents and states", bare: fileContentType},
	"GET /cluster":                     {tag: tagCluster, summary: "State of the cluster: a node by itself has none", result: "Cluster"},
	"GET /cluster/peers":               {tag: tagCluster, summary: "Its nodes, and what those that answer say of themselves", result: "[]Peer"},
	"DELETE /cluster/peer/{peer}":      {tag: tagCluster, summary: "End a node's membership, if a majority of those that stay answers", result: "True"},
	"POST /cluster/leader":             {tag: tagCluster, summary: "Make another node the leader", body: "NewLeader", result: "True"},
	"GET /collections/{name}/cluster":  {tag: tagCluster, summary: "Where the shards are", result: "CollectionCluster"},
	"POST /collections/{name}/cluster": {tag: tagCluster, summary: "Move shards: refused, for every node has every shard", params: settingParams, body: "Payload", result: "True"},

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

	"PUT /collections/{name}/memories":         {tag: tagMemories, summary: "Write memories, each unless there is one like it", params: writeParams, body: "StoreMemories", result: "StoredMemories"},
	"POST /collections/{name}/memories/search": {tag: tagMemories, summary: "Memories by similarity, age and importance; touch needs the permission write", params: readParams, body: "SearchMemories", result: "FoundMemories"},
	"POST /collections/{name}/memories/touch":  {tag: tagMemories, summary: "Count a use of each", params: "wait ordering timeout", body: "TouchMemories", result: "TouchedMemories"},
	"POST /collections/{name}/memories/delete": {tag: tagMemories, summary: "Forget memories; the log has a line of it", params: "wait ordering timeout", body: "ForgetMemories", result: "ForgottenMemories"},

	"GET /collections/{name}/snapshots":               {tag: tagSnapshots, summary: "Snapshots of a collection", result: "[]Snapshot"},
	"POST /collections/{name}/snapshots":              {tag: tagSnapshots, summary: "Make one", params: "wait", result: "Snapshot"},
	"GET /collections/{name}/snapshots/{snapshot}":    {tag: tagSnapshots, summary: "The file", bare: fileContentType},
	"DELETE /collections/{name}/snapshots/{snapshot}": {tag: tagSnapshots, summary: "Delete one", params: "wait", result: "True"},
	"PUT /collections/{name}/snapshots/recover":       {tag: tagSnapshots, summary: "Replace the collection by a snapshot", params: "wait", body: "RecoverSnapshot", result: "True"},
	"POST /collections/{name}" + uploadPath:           {tag: tagSnapshots, summary: "Replace the collection by the snapshot in the body", params: "wait checksum priority", body: "UploadSnapshot", result: "True"},
	"GET /queues":                                     {tag: tagQueues, summary: "All of them, by name", result: "Queues"},
	"GET /queues/{queue}":                             {tag: tagQueues, summary: "Settings and state", result: "Queue"},
	"PUT /queues/{queue}":                             {tag: tagQueues, summary: "Create or configure one: what is not given is the default", params: settingParams, body: "QueueConfig", result: "True"},
	"PATCH /queues/{queue}":                           {tag: tagQueues, summary: "Change what is given", params: settingParams, body: "QueueConfig", result: "True"},
	"DELETE /queues/{queue}":                          {tag: tagQueues, summary: "Delete one", params: "force timeout", result: "True"},

	"POST /queues/{queue}/tasks":                {tag: tagTasks, summary: "Submit one task or many", params: "timeout task_key traceparent", body: "Submission", result: "SubmissionResult"},
	"POST /queues/{queue}/tasks/lease":          {tag: tagTasks, summary: "Take tasks, and wait for some", params: "timeout with_vector", body: "Lease", result: "Leased"},
	"GET /queues/{queue}/dead_letters":          {tag: tagQueues, summary: "The failed tasks", params: "task_limit after_task with_vector", result: "TaskPage"},
	"POST /queues/{queue}/dead_letters/redrive": {tag: tagQueues, summary: "Give failed tasks their attempts anew", params: settingParams, body: "Redrive", result: "Redriven"},

	"POST /tasks/lease":            {tag: tagTasks, summary: "Take tasks of all queues that the agent serves", params: "timeout with_vector", body: "Lease", result: "Leased"},
	"POST /tasks/heartbeat":        {tag: tagTasks, summary: "Extend many leases", params: settingParams, body: "Heartbeats", result: "CallResults"},
	"POST /tasks/scroll":           {tag: tagTasks, summary: "A page of tasks", params: "with_vector", body: "TaskScroll", result: "TaskPage"},
	"POST /tasks/count":            {tag: tagTasks, summary: "Number of tasks", body: "TaskScroll", result: "Counted"},
	"GET /tasks/{task}":            {tag: tagTasks, summary: "One task", params: "with_vector", result: "Task"},
	"POST /tasks/{task}/heartbeat": {tag: tagTasks, summary: "Extend a lease", params: settingParams, body: "Heartbeat", result: "CallResult"},
	"POST /tasks/{task}/complete":  {tag: tagTasks, summary: "The task is done", params: settingParams, body: "Complete", result: "CallResult"},
	"POST /tasks/{task}/fail":      {tag: tagTasks, summary: "The attempt failed", params: settingParams, body: "Fail", result: "CallResult"},
	"POST /tasks/{task}/release":   {tag: tagTasks, summary: "Give the task back, no attempt counted", params: settingParams, body: "Release", result: "CallResult"},
	"POST /tasks/{task}/input":     {tag: tagTasks, summary: "Ask for input, or give it", params: settingParams, body: "Input", result: "InputResult"},
	"POST /tasks/{task}/cancel":    {tag: tagTasks, summary: "Cancel the task", params: settingParams, result: "Task"},
	"GET /tasks/{task}/result":     {tag: tagTasks, summary: "What the task came to, and wait for it", params: "wait_ms", result: "TaskResult"},
	"GET /tasks/{task}/events":     {tag: tagTasks, summary: "Its events as they come, to its end", params: "last_event_id", bare: eventContentType},
	"GET /tasks/{task}/route":      {tag: tagTasks, summary: "Why it went where it went", result: "Decisions"},
	"GET /events":                  {tag: tagTasks, summary: "Events of tasks as they come", params: "events_queue last_event_id", bare: eventContentType},

	"GET /agents":                    {tag: tagAgents, summary: "All of them, by id", params: "with_vector", result: "Agents"},
	"GET /agents/{agent}":            {tag: tagAgents, summary: "One agent", params: "with_vector", result: "Agent"},
	"PUT /agents/{agent}":            {tag: tagAgents, summary: "Register one, or change it", params: settingParams, body: "AgentConfig", result: "True"},
	"DELETE /agents/{agent}":         {tag: tagAgents, summary: "Remove one, and end its leases", params: settingParams, result: "True"},
	"POST /agents/{agent}/heartbeat": {tag: tagAgents, summary: "A sign of life", params: settingParams, body: "AgentHeartbeat", result: "AgentNews"},
	"POST /agents/{agent}/drain":     {tag: tagAgents, summary: "Let it get no new tasks", params: settingParams, result: "True"},
	"GET /pools":                     {tag: tagAgents, summary: "The pools of agents that are processes of this server", result: "Pools"},
	"PUT /pools/{pool}":              {tag: tagAgents, summary: "Create or change one, of a program that the operator has allowed", params: settingParams, body: "Pool", result: "True"},
	"DELETE /pools/{pool}":           {tag: tagAgents, summary: "End one and its processes", params: settingParams, result: "True"},
	"POST /pools/{pool}/scale":       {tag: tagAgents, summary: "Change how many processes one has", params: settingParams, body: "PoolSize", result: "True"},
	"POST /agents/{agent}/resume":    {tag: tagAgents, summary: "Let it get some again", params: settingParams, result: "True"},
	"POST /route":                    {tag: tagAgents, summary: "Where a task would go", params: settingParams, body: "RouteRequest", result: "Decision"},

	"GET /states":          {tag: tagStates, summary: "A page of states, without their values", params: "prefix after_key state_limit", result: "States"},
	"GET /states/{key}":    {tag: tagStates, summary: "A value, and wait for a new one", params: "wait_ms since if_none_match", bare: anyContentType},
	"PUT /states/{key}":    {tag: tagStates, summary: "Write a value, up to 64 MiB of whatever content type", params: "timeout ttl_seconds if_match if_none_match", body: "AnyContent", result: "State"},
	"DELETE /states/{key}": {tag: tagStates, summary: "Delete one", params: "timeout if_match", result: "Bool"},

	"GET /snapshots":               {tag: tagSnapshots, summary: "Snapshots of the node", result: "[]Snapshot"},
	"POST /snapshots":              {tag: tagSnapshots, summary: "Make one of the node", params: "wait", result: "Snapshot"},
	"GET /snapshots/{snapshot}":    {tag: tagSnapshots, summary: "The file", bare: fileContentType},
	"DELETE /snapshots/{snapshot}": {tag: tagSnapshots, summary: "Delete one of the node", params: "wait", result: "True"},
}

// The content types of a description, which has them without parameters.
const (
	plainContentType = "text/plain"
	fileContentType  = "application/octet-stream"
	formContentType  = "multipart/form-data"
	anyContentType   = "*/*"
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
		if o.body == "AnyContent" {
			kind = anyContentType
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
	if o.bare == anyContentType {
		out["304"] = map[string]any{"description": "There is no other version than the client has."}
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
