package server

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/vectord/vectord/internal/model"
)

func TestTelemetry(t *testing.T) {
	h := start(t, model.New(), Options{Version: "0.9.0"})
	h.ok("PUT", "/collections/private", `{"vectors":{"image":{"size":2,"distance":"Dot"}},"shard_number":2,"metadata":{"owner":"me"}}`, "true")
	h.ok("PUT", "/collections/private/points", `{"points":[{"id":1,"vector":{"image":[1,2]}}]}`, "")
	h.refused(404, "GET", "/collections/absent", "", "Not found: Collection `absent` doesn't exist!")

	keys := func(v any) string { return strings.Join(slices.Sorted(maps.Keys(v.(map[string]any))), " ") }
	get := func(query string) map[string]any {
		t.Helper()
		status, answer, _ := h.send("GET", "/telemetry"+query, nil)
		var out map[string]any
		if err := json.Unmarshal([]byte(result(t, answer)), &out); status != 200 || err != nil {
			t.Fatalf("GET /telemetry%s: %d %s", query, status, answer)
		}
		return out
	}
	same := func(what, got, want string) {
		t.Helper()
		if got != want {
			t.Errorf("%s: %s, want %s", what, got, want)
		}
	}
	least := get("")
	same("level 0", keys(least), "app cluster collections id requests")
	same("collections of level 0", keys(least["collections"]), "number_of_collections")
	same("app of level 0", keys(least["app"]), "jwt_rbac name startup version")
	rest := least["requests"].(map[string]any)["rest"].(map[string]any)["responses"].(map[string]any)
	for route, status := range map[string]string{"PUT /collections/{name}/points": "200", "GET /collections/{name}": "404"} {
		same("answers of "+route, keys(rest[route]), status)
		counted := rest[route].(map[string]any)[status].(map[string]any)
		if counted["count"] != 1.0 || !strings.HasPrefix(counted["last_responded"].(string), "20") {
			t.Errorf("%s: %v", route, counted)
		}
	}
	for level, want := range map[string]string{"1": "optimizers_status params vectors", "2": "config id init_time_ms",
		"3": "config id init_time_ms resharding shards transfers", "10": "config id init_time_ms resharding shards transfers"} {
		got := get("?details_level=" + level)
		same("level "+level, keys(got), "app cluster collections hardware id memory requests")
		same("app of level "+level, keys(got["app"]), "features jwt_rbac name startup system version")
		same("collection of level "+level, keys(got["collections"].(map[string]any)["collections"].([]any)[0]), want)
	}
	if get("")["id"] != least["id"] || get("")["app"].(map[string]any)["version"] != "0.9.0" {
		t.Error("the id or the version changes")
	}
	for _, query := range []string{"?details_level=1&anonymize=true", "?details_level=3&anonymize=true"} {
		whole, err := json.Marshal(get(query))
		if err != nil {
			t.Fatal(err)
		}
		for _, secret := range []string{"private", "image", "owner"} {
			if strings.Contains(string(whole), secret) {
				t.Errorf("%s tells %q: %s", query, secret, whole)
			}
		}
	}
	h.refused(400, "GET", "/telemetry?details_level=-1", "", `Format error in query parameters: details_level: expected a non-negative integer, got "-1"`)
	h.refused(400, "GET", "/telemetry?anonymize=1", "", `Format error in query parameters: anonymize: expected true or false, got "1"`)
	h.refused(400, "GET", "/telemetry?per_collection=true", "", "Bad request: per_collection: requests are not counted by collection")
}

func TestCluster(t *testing.T) {
	h := withPoints(t, Options{})
	h.ok("GET", "/cluster", "", `{"status":"disabled"}`)
	h.ok("GET", "/collections/c/cluster", "", `{"peer_id":1,"shard_count":1,"local_shards":[{"shard_id":0,"points_count":3,"state":"Active"}],`+
		`"remote_shards":[],"shard_transfers":[]}`)
	h.refused(404, "GET", "/collections/no/cluster", "", "Not found: Collection `no` doesn't exist!")
	h.refused(400, "POST", "/collections/c/cluster", `{"move_shard":{"shard_id":0,"from_peer_id":1,"to_peer_id":2}}`,
		"Bad request: this server runs in standalone mode, there is no other node to move shards to")
	h.refused(404, "POST", "/collections/no/cluster", `{}`, "Not found: Collection `no` doesn't exist!")
	h.ok("GET", "/issues", "", `{"issues":[]}`)
	h.ok("DELETE", "/issues", "", `true`)
}
