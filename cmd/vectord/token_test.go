package main

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vectord/vectord/internal/token"
)

func TestToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := func(want token.Claims, args ...string) {
			t.Helper()
			code, stdout, stderr := invoke(t, []string{"VECTORD_API_KEY=k"}, append([]string{"token"}, args...)...)
			if code != exitOK {
				t.Errorf("token %q: exit code %d: %s", args, code, stderr)
				return
			}
			got, err := token.Parse("k", strings.TrimSpace(stdout))
			if err != nil || !got.Expires.Equal(want.Expires) {
				t.Errorf("token %q says %+v (%v), want %+v", args, got, err, want)
				return
			}
			if got.Expires = want.Expires; !reflect.DeepEqual(*got, want) {
				t.Errorf("token %q says %+v, want %+v", args, got, want)
			}
		}
		day := time.Now().Add(24 * time.Hour)
		f(token.Claims{Access: token.Read, Expires: day}, "--access", "r")
		f(token.Claims{Access: token.Manage}, "--access=m", "--exp=0")
		f(token.Claims{Subject: "me", Expires: time.Now().Add(time.Minute), Collections: []token.Collection{{Name: "a,b", Access: token.Write}, {Name: "c=d", Access: token.WritePoints}}},
			"--collection", "a,b=rw", "--collection", "c=d=prw", "--exp", "1m", "--subject", "me")
		values := []token.Match{{Key: "s", Value: json.RawMessage(`"a=b"`)}, {Key: "n", Value: json.RawMessage(`7`)}, {Key: "b", Value: json.RawMessage(`true`)},
			{Key: "q", Value: json.RawMessage(`"7"`)}, {Key: "f", Value: json.RawMessage(`"1.5"`)}, {Key: "e", Value: json.RawMessage(`""`)}}
		f(token.Claims{Access: token.Read, Expires: day, Exists: &token.Exists{Collection: "users", Matches: values}}, "--access", "r", "--value-exists", "users",
			"--match", "s=a=b", "--match", "n=7", "--match", "b=true", "--match", `q="7"`, "--match", "f=1.5", "--match", "e=")
	})
}

func TestTokenRefuses(t *testing.T) {
	f := func(wantCode int, want string, args ...string) {
		t.Helper()
		code, stdout, stderr := invoke(t, nil, append([]string{"token"}, args...)...)
		if code != wantCode || !strings.Contains(stderr, want) {
			t.Errorf("token %q: exit code %d, %s%s, want %q", args, code, stdout, stderr, want)
		}
	}
	f(exitError, "give --api-key", "--access", "r")
	f(exitError, "for what the token shall open", "--api-key", "k")
	f(exitError, "give one of the two", "--api-key", "k", "--access", "r", "--collection", "a=r")
	f(exitUsage, "--access must be one of", "--api-key", "k", "--access", "rw")
	f(exitError, `got "a"`, "--api-key", "k", "--collection", "a")
	f(exitError, `--collection a=x: access "x" is unknown`, "--api-key", "k", "--collection", "a=x")
	f(exitError, "m is not to single collections", "--api-key", "k", "--collection", "a=m")
	f(exitError, "forbidden character", "--api-key", "k", "--collection", "a/b=r")
	f(exitError, "is given twice", "--api-key", "k", "--collection", "a=r", "--collection", "a=rw")
	f(exitError, "in the past", "--api-key", "k", "--access", "r", "--exp=-1h")
	f(exitError, "belong together", "--api-key", "k", "--access", "r", "--match", "a=1")
	f(exitError, "belong together", "--api-key", "k", "--access", "r", "--value-exists", "c")
	f(exitError, "expected PATH=VALUE", "--api-key", "k", "--access", "r", "--value-exists", "c", "--match", "a")
}
