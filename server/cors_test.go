package server

import (
	"net/http"
	"strings"
	"testing"

	"github.com/vectord/vectord/internal/model"
)

func TestPagesOfOtherSites(t *testing.T) {
	const page, other = "https://app.example.com", "https://evil.example.com"
	const write = `{"points":[1]}`
	h := withPoints(t, Options{CORSOrigins: []string{page}})
	preflight := []string{"Access-Control-Request-Method", "POST", "Access-Control-Request-Headers", "api-key,content-type"}
	send := func(method, path, body, origin string, header ...string) (int, http.Header, string) {
		t.Helper()
		status, answer, got := h.send(method, path, strings.NewReader(body), append(header, "Origin", origin)...)
		return status, got, answer
	}
	// A form of text/plain is sent without a question, and so must not do anything.
	status, got, answer := send("POST", "/collections/c/points/delete", write, other, "Content-Type", "text/plain")
	if want := "Forbidden: requests by pages of " + other + " are not allowed; the server's --cors says whose are"; status != 403 || result(t, answer) != want ||
		got.Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("write from another site: %d %s %v", status, answer, got)
	}
	for _, origin := range []string{other, "null", page + ":8443", "http://" + h.addr, strings.ToUpper(page)} {
		for _, path := range []string{"/", "/collections/c", "/nothing"} {
			if status, got, answer := send("GET", path, "", origin); status != 403 || got.Get("Access-Control-Allow-Origin") != "" {
				t.Errorf("GET %s from %s: %d %s", path, origin, status, answer)
			}
		}
		if status, got, _ := send("OPTIONS", "/collections/c/points/query", "", origin, preflight...); status != 403 || got.Get("Access-Control-Allow-Methods") != "" {
			t.Errorf("question from %s: %d %v", origin, status, got)
		}
	}
	h.ok("POST", "/collections/c/points/count", `{}`, `{"count":3}`)

	status, got, answer = send("OPTIONS", "/collections/c/points/query", "", page, preflight...)
	if status != 204 || answer != "" || got.Get("Access-Control-Allow-Origin") != page || got.Get("Access-Control-Allow-Methods") != "POST" ||
		got.Get("Access-Control-Allow-Headers") != "api-key,content-type" || got.Get("Vary") != "Origin" {
		t.Errorf("question: %d %v", status, got)
	}
	for path, want := range map[string]int{"/collections/c": 200, "/collections/no": 404, "/nothing": 404} {
		status, got, _ = send("GET", path, "", page)
		if status != want || got.Get("Access-Control-Allow-Origin") != page {
			t.Errorf("GET %s: %d %v", path, status, got)
		}
	}
	if status, _, _ = send("OPTIONS", "/collections/c", "", page); status != 405 {
		t.Errorf("OPTIONS that asks nothing: %d", status)
	}

	h = withPoints(t, Options{CORSOrigins: []string{anyOrigin}})
	if status, got, _ = send("DELETE", "/collections/c", "", "null"); status != 200 || got.Get("Access-Control-Allow-Origin") != "null" {
		t.Errorf("DELETE where every page may: %d %v", status, got)
	}
}

// TestQuestionsNeedNoKey checks that a browser may ask, which it does without credentials, and that the key counts all the same.
func TestQuestionsNeedNoKey(t *testing.T) {
	h := start(t, model.New(), Options{CORSOrigins: []string{anyOrigin}, APIKey: "secret"})
	origin := []string{"Origin", "https://app.example.com"}
	if status, answer, _ := h.send("OPTIONS", "/collections/c", nil, append(origin, "Access-Control-Request-Method", "PUT")...); status != 204 {
		t.Errorf("question: %d %s", status, answer)
	}
	if status, _, got := h.send("GET", "/collections", nil, origin...); status != 401 || got.Get("Access-Control-Allow-Origin") != origin[1] {
		t.Errorf("without a key: %d %v", status, got)
	}
	if status, answer, _ := h.send("GET", "/collections", nil, append(origin, "api-key", "secret")...); status != 200 {
		t.Errorf("with the key: %d %s", status, answer)
	}
}
