package openapi

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
)

// qdrantVariable names the file with Qdrant's own description, which is not part of this project.
const qdrantVariable = "QDRANT_OPENAPI"

// Qdrant returns Qdrant's description of its API from the file that the variable QDRANT_OPENAPI names, or nil without one. What
// Qdrant does and its description leaves out is added: routes from before the query API, which are described by what they
// share with others, and answers to bad keys, which are plain text. Of requests it says nothing.
func Qdrant() (*Description, error) {
	path := os.Getenv(qdrantVariable)
	if path == "" {
		return nil, nil
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", qdrantVariable, err)
	}
	var doc map[string]any
	if err := json.Unmarshal(b, &doc); err != nil {
		return nil, fmt.Errorf("%s: %s: %w", qdrantVariable, path, err)
	}
	paths, ok := doc["paths"].(map[string]any)
	if !ok {
		return nil, fmt.Errorf("%s: %s has no paths", qdrantVariable, path)
	}
	addLegacy(paths)
	addPlainRefusals(paths)
	dropRequests(paths)
	if b, err = json.Marshal(doc); err != nil {
		return nil, err
	}
	return Parse(b, Options{Name: "Qdrant's description"})
}

// addLegacy adds the routes from before the query API. Their answers are those of queries without the object around them.
func addLegacy(paths map[string]any) {
	ref := func(name string) map[string]any { return map[string]any{"$ref": "#/components/schemas/" + name} }
	list := func(of any) map[string]any { return map[string]any{"type": "array", "items": of} }
	points := list(ref("ScoredPoint"))
	for route, result := range map[string]any{
		"search": points, "search/batch": list(points), "search/groups": ref("GroupsResult"),
		"recommend": points, "recommend/batch": list(points), "recommend/groups": ref("GroupsResult"),
		"discover": points, "discover/batch": list(points),
	} {
		path := "/collections/{collection_name}/points/" + route
		if paths[path] != nil {
			continue
		}
		content := func(schema any) map[string]any {
			return map[string]any{"content": map[string]any{"application/json": map[string]any{"schema": schema}}}
		}
		paths[path] = map[string]any{"post": map[string]any{"responses": map[string]any{
			"200": content(map[string]any{"type": "object", "required": []any{"result", "status", "time"}, "properties": map[string]any{
				"result": result, "status": map[string]any{"enum": []any{"ok"}}, "time": map[string]any{"type": "number"}}}),
			"4XX": content(ref("ErrorResponse")),
		}}}
	}
}

// addPlainRefusals lets every operation answer with 401 and 403 in plain text besides what its description says.
func addPlainRefusals(paths map[string]any) {
	for _, methods := range paths {
		for _, o := range methods.(map[string]any) {
			responses := o.(map[string]any)["responses"].(map[string]any)
			refused, _ := responses["4XX"].(map[string]any)
			described, ok := refused["content"].(map[string]any)
			if !ok {
				continue // any content
			}
			content := map[string]any{"text/plain": map[string]any{}}
			maps.Copy(content, described)
			responses["401"], responses["403"] = map[string]any{"content": content}, map[string]any{"content": content}
		}
	}
}

// dropRequests leaves the bodies of requests undescribed: vectord takes more than Qdrant does.
func dropRequests(paths map[string]any) {
	for _, methods := range paths {
		for _, o := range methods.(map[string]any) {
			delete(o.(map[string]any), "requestBody")
		}
	}
}
