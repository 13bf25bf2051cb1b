package server

import (
	"strings"
	"testing"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/internal/model"
)

// withGroups is a server with a few points, two collections to look up in, and payload indexes.
func withGroups(t *testing.T, o Options) *harness {
	h := start(t, model.New(), o)
	h.ok("PUT", "/collections/c", `{"vectors":{"size":2,"distance":"Dot"}}`, "true")
	h.ok("PUT", "/collections/c/points", `{"points":[
		{"id":1,"vector":[4,0],"payload":{"doc":1,"tag":["a","b"],"n":3,"at":"2026-01-02"}},
		{"id":2,"vector":[3,0],"payload":{"doc":1,"tag":"a","n":[1,2.5,1.0]}},
		{"id":3,"vector":[2,1],"payload":{"doc":"550e8400-e29b-41d4-a716-446655440000","tag":"b","n":1,"ok":true}},
		{"id":4,"vector":[1,2],"payload":{"doc":[1,"550e8400-e29b-41d4-a716-446655440000"],"tag":["c","c"],"n":-2,"ok":false,"at":"2026-01-01T00:00:01Z"}},
		{"id":5,"vector":[0,3],"payload":{"doc":2.5,"tag":7,"n":"no","ok":true}},
		{"id":6,"vector":[5,5],"payload":{"doc":null}}]}`, "")
	h.ok("PUT", "/collections/docs", `{"vectors":{"size":1,"distance":"Dot"}}`, "true")
	h.ok("PUT", "/collections/docs/points", `{"points":[{"id":1,"vector":[7],"payload":{"title":"one","text":"…"}},
		{"id":"550e8400-e29b-41d4-a716-446655440000","vector":[8],"payload":{"title":"two"}}]}`, "")
	for field, of := range map[string]string{"tag": "keyword", "n": "integer", "ok": "bool", "at": "datetime", "doc": "uuid"} {
		h.ok("PUT", "/collections/c/index?wait=true", `{"field_name":"`+field+`","field_schema":"`+of+`"}`, "")
	}
	return h
}

func TestGroups(t *testing.T) {
	h := withGroups(t, Options{})
	const c, uuid = "/collections/c/points", `"550e8400-e29b-41d4-a716-446655440000"`
	hit := func(id, score string) string { return `{"id":` + id + `,"version":1,"score":` + score + `}` }
	one, two := hit("1", "4")+`,`+hit("2", "3"), hit("3", "2")+`,`+hit("4", "1")
	both := `{"groups":[{"id":1,"hits":[` + one + `]},{"id":` + uuid + `,"hits":[` + two + `]}]}`

	h.ok("POST", c+"/query/groups", `{"query":[1,0],"group_by":"doc","group_size":2}`, both)
	h.ok("POST", c+"/query/groups", `{"query":{"nearest":[1,0]},"group_by":"doc[]","group_size":1}`,
		`{"groups":[{"id":1,"hits":[`+hit("4", "1")+`]},{"id":`+uuid+`,"hits":[`+hit("4", "1")+`]}]}`)
	h.ok("POST", c+"/query/groups", `{"query":[1,0],"group_by":"doc","limit":1}`,
		`{"groups":[{"id":1,"hits":[`+one+`,`+hit("4", "1")+`]}]}`)
	h.ok("POST", c+"/query/groups", `{"query":[1,0],"group_by":"none"}`, `{"groups":[]}`)
	h.ok("POST", c+"/query/groups", `{"query":[1,0],"group_by":"tag","filter":{"must":[{"key":"doc","match":{"value":1}}]},"group_size":1,"with_payload":["tag"]}`,
		`{"groups":[{"id":"a","hits":[{"id":1,"version":1,"score":4,"payload":{"tag":["a","b"]}}]},`+
			`{"id":"b","hits":[{"id":1,"version":1,"score":4,"payload":{"tag":["a","b"]}}]},`+
			`{"id":"c","hits":[{"id":4,"version":1,"score":1,"payload":{"tag":["c","c"]}}]}]}`)
	h.ok("POST", c+"/query/groups", `{"group_by":"doc","group_size":1,"limit":1,"with_vector":true}`,
		`{"groups":[{"id":1,"hits":[{"id":1,"version":1,"score":0,"vector":[4,0]}]}]}`)
	h.ok("POST", c+"/query/groups", `{"query":{"order_by":{"key":"n","direction":"desc"}},"group_by":"tag","group_size":2,"limit":2}`,
		`{"groups":[{"id":"a","hits":[{"id":1,"version":1,"score":0,"order_value":3},{"id":2,"version":1,"score":0,"order_value":2.5}]},`+
			`{"id":"b","hits":[{"id":1,"version":1,"score":0,"order_value":3},{"id":3,"version":1,"score":0,"order_value":1}]}]}`)
	h.ok("POST", c+"/query/groups", `{"prefetch":{"query":[1,0],"limit":3},"query":{"fusion":"rrf"},"group_by":"doc"}`,
		`{"groups":[{"id":1,"hits":[`+hit("1", "0.33333334")+`,`+hit("2", "0.25")+`]}]}`)
	h.ok("POST", c+"/search/groups", `{"vector":[1,0],"group_by":"doc","group_size":2,"limit":5}`, both)
	h.ok("POST", c+"/recommend/groups", `{"positive":[6],"negative":[],"group_by":"doc","group_size":1,"limit":1}`,
		`{"groups":[{"id":1,"hits":[`+hit("1", "20")+`]}]}`)

	// With the points of another collection.
	withLookup := func(lookup, first, second string) {
		t.Helper()
		h.ok("POST", c+"/query/groups", `{"query":[1,0],"group_by":"doc","group_size":2,"with_lookup":`+lookup+`}`,
			`{"groups":[{"id":1,"hits":[`+one+`],"lookup":`+first+`},{"id":`+uuid+`,"hits":[`+two+`],"lookup":`+second+`}]}`)
	}
	withLookup(`"docs"`, `{"id":1,"payload":{"text":"…","title":"one"}}`, `{"id":`+uuid+`,"payload":{"title":"two"}}`)
	withLookup(`{"collection":"docs","with_payload":["title"],"with_vectors":true}`,
		`{"id":1,"payload":{"title":"one"},"vector":[7]}`, `{"id":`+uuid+`,"payload":{"title":"two"},"vector":[8]}`)
	withLookup(`{"collection":"docs","with_payload":false,"with_vector":false}`, `{"id":1}`, `{"id":`+uuid+`}`)
	h.ok("POST", c+"/query/groups", `{"query":[1,0],"group_by":"tag","group_size":1,"limit":1,"with_lookup":"docs"}`,
		`{"groups":[{"id":"a","hits":[`+hit("1", "4")+`]}]}`)

	f := h.refused
	f(400, "POST", c+"/query/groups", `{"query":[1,0]}`, "Format error in JSON body: missing field `group_by`")
	f(400, "POST", c+"/search/groups", `{"vector":[1,0],"limit":1,"group_by":"doc"}`, "Format error in JSON body: missing field `group_size`")
	f(400, "POST", c+"/query/groups", `{"query":[1,0],"group_by":"a..b"}`, `Wrong input: "a..b" is not a valid payload path`)
	f(400, "POST", c+"/query", `{"query":[1,0],"group_by":"doc"}`, "Wrong input: group_by: belongs to points/query/groups")
	f(400, "POST", c+"/query/groups", `{"query":[1,0],"group_by":"doc","with_lookup":{}}`, "Format error in JSON body: with_lookup: missing field `collection`")
	f(404, "POST", c+"/query/groups", `{"query":[1,0],"group_by":"none","with_lookup":"nowhere"}`, "Not found: Collection `nowhere` doesn't exist!")
	f(422, "POST", c+"/query/groups", `{"query":[1,0],"group_by":""}`, "Validation error in JSON body: [group_by: is empty]")
	f(422, "POST", c+"/query/groups", `{"query":[1,0],"group_by":"doc","group_size":0}`,
		"Validation error in JSON body: [group_size: value 0 invalid, must be from 1 to 1000]")
}

func TestLegacyRoutes(t *testing.T) {
	h := withGroups(t, Options{})
	const c = "/collections/c/points"
	hits := func(list ...string) string {
		var out []string
		for i := 0; i < len(list); i += 2 {
			out = append(out, `{"id":`+list[i]+`,"version":1,"score":`+list[i+1]+`}`)
		}
		return "[" + strings.Join(out, ",") + "]"
	}
	// The mean of [4,0] and [0,3], and that less [2,1] beside it.
	h.ok("POST", c+"/recommend", `{"positive":[1,[0,3]],"limit":2}`, hits("6", "17.5", "2", "6"))
	h.ok("POST", c+"/recommend", `{"positive":[1,[0,3]],"negative":[3],"limit":2,"offset":1,"with_payload":["ok"]}`,
		`[{"id":2,"version":1,"score":6,"payload":{}},{"id":4,"version":1,"score":6,"payload":{"ok":false}}]`)
	h.ok("POST", c+"/recommend", `{"positive":[1],"strategy":"sum_scores","negative":[5],"limit":1,"using":""}`, hits("2", "12"))
	h.ok("POST", c+"/recommend/batch", `{"searches":[{"positive":[1],"limit":1},{"positive":[2],"limit":1,"filter":{"must":{"has_id":[3]}}}]}`,
		"["+hits("6", "20")+","+hits("3", "6")+"]")
	// One for each pair on whose right side the point is, less one for each other, and 0.5 (x/(1+|x|) + 1) of the product with the target.
	h.ok("POST", c+"/discover", `{"target":[1,0],"context":[{"positive":[0,1],"negative":[1,0]}],"limit":2}`, hits("4", "1.75", "5", "1.5"))
	h.ok("POST", c+"/discover", `{"target":[0,1],"limit":1}`, hits("6", "0.9166667"))
	h.ok("POST", c+"/discover", `{"context":[{"positive":[0,1],"negative":[1,0]}],"limit":1,"filter":{"must":{"has_id":[1]}}}`, hits("1", "-0.8"))
	h.ok("POST", c+"/discover/batch", `{"searches":[{"target":[0,1],"limit":1}]}`, "["+hits("6", "0.9166667")+"]")

	f := h.refused
	f(400, "POST", c+"/recommend", `{"positive":[1]}`, "Format error in JSON body: missing field `limit`")
	f(400, "POST", c+"/discover", `{"limit":1}`, "Format error in JSON body: missing field `target`")
	f(400, "POST", c+"/recommend/batch", `{}`, "Format error in JSON body: missing field `searches`")
	f(400, "POST", c+"/discover/batch", `{"searches":[{"limit":1}]}`, "Format error in JSON body: missing field `searches[0].target`")
	f(400, "POST", c+"/recommend", `{"negative":[1],"limit":1}`, "Wrong input: query.recommend.positive: At least one positive vector ID required with this strategy")
	f(404, "POST", c+"/recommend", `{"positive":[1],"limit":1,"lookup_from":{"collection":"nowhere"}}`, "Not found: Collection `nowhere` doesn't exist!")
}

func TestFacet(t *testing.T) {
	h := withGroups(t, Options{})
	const c = "/collections/c/facet"
	h.ok("POST", c, `{"key":"tag"}`, `{"hits":[{"value":"a","count":2},{"value":"b","count":2},{"value":"c","count":1}]}`)
	h.ok("POST", c, `{"key":"n","limit":2,"exact":true}`, `{"hits":[{"value":1,"count":2},{"value":-2,"count":1}]}`)
	h.ok("POST", c, `{"key":"ok"}`, `{"hits":[{"value":true,"count":2},{"value":false,"count":1}]}`)
	h.ok("POST", c, `{"key":"doc"}`, `{"hits":[{"value":"550e8400-e29b-41d4-a716-446655440000","count":2}]}`)
	h.ok("POST", c, `{"key":"tag","filter":{"must":[{"key":"doc","match":{"value":1}}]}}`,
		`{"hits":[{"value":"a","count":2},{"value":"b","count":1},{"value":"c","count":1}]}`)
	h.ok("POST", c, `{"key":"tag","filter":{"must":[{"has_id":[]}]}}`, `{"hits":[]}`)
	f := h.refused
	f(400, "POST", c, `{}`, "Format error in JSON body: missing field `key`")
	f(400, "POST", c, `{"key":"at"}`, "Wrong input: no index of types [keyword uuid integer bool] on at")
	f(422, "POST", c, `{"key":"tag","limit":0}`, "Validation error in JSON body: [limit: value 0 invalid, must be 1 or larger]")
}

func TestOrderBy(t *testing.T) {
	h := withGroups(t, Options{})
	const c = "/collections/c/points"
	order := func(by string, limit string, pairs ...string) {
		t.Helper()
		var scrolled, queried []string
		for i := 0; i < len(pairs); i += 2 {
			scrolled = append(scrolled, `{"id":`+pairs[i]+`,"order_value":`+pairs[i+1]+`}`)
			queried = append(queried, `{"id":`+pairs[i]+`,"version":1,"score":0,"order_value":`+pairs[i+1]+`}`)
		}
		h.ok("POST", c+"/scroll", `{"order_by":`+by+`,"limit":`+limit+`,"with_payload":false}`,
			`{"points":[`+strings.Join(scrolled, ",")+`],"next_page_offset":null}`)
		h.ok("POST", c+"/query", `{"query":{"order_by":`+by+`},"limit":`+limit+`}`, `{"points":[`+strings.Join(queried, ",")+`]}`)
	}
	order(`"n"`, "10", "4", "-2", "2", "1", "3", "1", "2", "2.5", "1", "3")
	order(`"n"`, "2", "4", "-2", "2", "1")
	order(`{"key":"n","direction":"desc"}`, "10", "1", "3", "2", "2.5", "2", "1", "3", "1", "4", "-2")
	order(`{"key":"n","start_from":1}`, "3", "2", "1", "3", "1", "2", "2.5")
	order(`{"key":"n","start_from":2.6,"direction":"asc"}`, "10", "1", "3")
	order(`{"key":"n","start_from":2.5,"direction":"desc"}`, "2", "2", "2.5", "2", "1")
	order(`"at"`, "10", "4", "1767225601000000", "1", "1767312000000000")
	order(`{"key":"at","start_from":"2026-01-01T00:00:02Z"}`, "10", "1", "1767312000000000")
	order(`{"key":"at","start_from":1767225601000000,"direction":"desc"}`, "10", "4", "1767225601000000")

	h.ok("POST", c+"/query", `{"prefetch":{"query":[1,0],"limit":3},"query":{"order_by":"n"}}`,
		`{"points":[{"id":2,"version":1,"score":0,"order_value":1},{"id":2,"version":1,"score":0,"order_value":2.5},{"id":1,"version":1,"score":0,"order_value":3}]}`)
	h.ok("POST", c+"/query", `{"prefetch":{"query":{"order_by":"n"},"limit":3},"query":[1,0]}`,
		`{"points":[{"id":2,"version":1,"score":3},{"id":3,"version":1,"score":2},{"id":4,"version":1,"score":1}]}`)
	h.ok("POST", c+"/query", `{"query":{"order_by":"n"},"offset":3,"limit":1}`, `{"points":[{"id":2,"version":1,"score":0,"order_value":2.5}]}`)

	f := h.refused
	f(400, "POST", c+"/scroll", `{"order_by":"tag"}`, "Wrong input: no index of types [integer float datetime] on tag")
	f(400, "POST", c+"/scroll", `{"order_by":"n","offset":1}`, "Wrong input: offset with order_by")
	f(400, "POST", c+"/scroll", `{"order_by":{}}`, "Format error in JSON body: order_by: missing field `key`")
	f(400, "POST", c+"/scroll", `{"order_by":{"key":"n","direction":"up"}}`, "Format error in JSON body: order_by: direction: expected asc or desc, got up")
	f(400, "POST", c+"/scroll", `{"order_by":{"key":"n","start_from":true}}`,
		"Format error in JSON body: order_by.start_from: expected a number or a date and time, got true")
	f(400, "POST", c+"/query", `{"query":{"order_by":"n"},"score_threshold":1}`, "Wrong input: score_threshold: there is no query to score by")
}

func TestMatrix(t *testing.T) {
	h := withGroups(t, Options{})
	const c = "/collections/c/points/search/matrix"
	three := `"filter":{"must":{"has_id":[1,3,4]}}`
	h.ok("POST", c+"/pairs", `{"limit":1,`+three+`}`, `{"pairs":[{"a":1,"b":3,"score":8},{"a":3,"b":1,"score":8},{"a":4,"b":1,"score":4}]}`)
	h.ok("POST", c+"/offsets", `{"sample":3,"limit":2,`+three+`}`,
		`{"offsets_row":[0,0,1,1,2,2],"offsets_col":[1,2,0,2,0,1],"scores":[8,4,8,4,4,4],"ids":[1,3,4]}`)
	h.ok("POST", c+"/offsets", `{"filter":{"must":{"has_id":[1]}}}`, `{"offsets_row":[],"offsets_col":[],"scores":[],"ids":[]}`)
	h.ok("POST", c+"/pairs", `{"filter":{"must":{"has_id":[]}}}`, `{"pairs":[]}`)
	f := h.refused
	f(422, "POST", c+"/pairs", `{"sample":1}`, "Validation error in JSON body: [sample: value 1 invalid, must be from 2 to 1000]")
	f(422, "POST", c+"/offsets", `{"limit":0}`, "Validation error in JSON body: [limit: value 0 invalid, must be 1 or larger]")
	f(400, "POST", c+"/pairs", `{"using":"other"}`, "Wrong input: "+vectord.NoVectorName("other").Error())
}
