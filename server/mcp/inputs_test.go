package mcpserver

import (
	"encoding/json"
	"testing"
)

// FuzzInputs checks that whatever JSON an agent asks by becomes requests of MCP.
func FuzzInputs(f *testing.F) {
	for _, seed := range []string{`"who?"`, `{"message":"who?"}`, `{"method":"elicitation/create"}`, `{"a":{"method":"x"},"b":{"method":"y"}}`, `{"a":1}`, `{}`, `null`, `[1]`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, request []byte) {
		if !json.Valid(request) {
			return
		}
		in := inputsOf(request)
		if len(in.requests) == 0 || in.sole && in.requests[soleInput] == nil {
			t.Errorf("%s: nothing is asked", request)
		}
		for name, r := range in.open() {
			if !isRequest(r) {
				t.Errorf("%s: %s is no request: %s", request, name, r)
			}
		}
	})
}
