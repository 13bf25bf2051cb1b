package token

import (
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

const key = "the key of all keys, 32 bytes long"

// sign returns a token with claims as they stand.
func sign(t *testing.T, claims string) string {
	t.Helper()
	body := part(`{"alg":"HS256","typ":"JWT"}`) + "." + part(claims)
	signature, err := jwt.SigningMethodHS256.Sign(body, []byte(key))
	if err != nil {
		t.Fatal(err)
	}
	return body + "." + base64.RawURLEncoding.EncodeToString(signature)
}

func part(text string) string { return base64.RawURLEncoding.EncodeToString([]byte(text)) }

func TestRoundTrip(t *testing.T) {
	f := func(c Claims, wantClaims string) {
		t.Helper()
		text, err := Sign(key, &c)
		if err != nil {
			t.Fatal(err)
		}
		claims, err := base64.RawURLEncoding.DecodeString(strings.Split(text, ".")[1])
		if err != nil || string(claims) != wantClaims {
			t.Errorf("claims %s, want %s", claims, wantClaims)
		}
		got, err := Parse(key, text)
		if err != nil || !reflect.DeepEqual(*got, c) {
			t.Errorf("%s: read %+v, want %+v (%v)", claims, got, c, err)
		}
	}
	f(Claims{Access: Manage}, `{"access":"m"}`)
	f(Claims{Access: Read, Subject: "me", Expires: time.Unix(4e9, 0)}, `{"access":"r","exp":4000000000,"subject":"me"}`)
	f(Claims{}, `{"access":[]}`)
	f(Claims{Collections: []Collection{{"a", Read}, {"b", WritePoints}, {"c é", Write}}},
		`{"access":[{"access":"r","collection":"a"},{"access":"prw","collection":"b"},{"access":"rw","collection":"c é"}]}`)
	f(Claims{Access: Manage, Exists: &Exists{"users", []Match{{"name", json.RawMessage(`"x"`)}, {"n", json.RawMessage(`12345678901234567`)}, {"on", json.RawMessage(`true`)}}}},
		`{"access":"m","value_exists":{"collection":"users","matches":[{"key":"name","value":"x"},{"key":"n","value":12345678901234567},{"key":"on","value":true}]}}`)
}

func TestParse(t *testing.T) {
	f := func(claims string, want Claims) {
		t.Helper()
		if got, err := Parse(key, sign(t, claims)); err != nil || !reflect.DeepEqual(*got, want) {
			t.Errorf("%s: %+v, %v, want %+v", claims, got, err, want)
		}
	}
	f(`{}`, Claims{Access: Manage})
	f(`{"iss":"x","aud":["y"],"iat":99999999999,"roles":{}}`, Claims{Access: Manage})
	f(`{"exp":4000000000.5,"nbf":0,"subject":"s"}`, Claims{Access: Manage, Expires: time.Unix(4e9, 5e8), Subject: "s"})
	f(`{"exp":null,"nbf":null,"subject":null,"value_exists":null}`, Claims{Access: Manage})
	f(` {"access" : [ {"collection":"a","access":"r","payload":null} ]}`, Claims{Collections: []Collection{{"a", Read}}})
}

func TestParseRefuses(t *testing.T) {
	f := func(claims, want string) {
		t.Helper()
		if got, err := Parse(key, sign(t, claims)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %+v, %v, want %q", claims, got, err, want)
		}
	}
	f(`{"access":"rw"}`, "rw is to single collections")
	f(`{"access":"prw"}`, "prw is to single collections")
	f(`{"access":"x"}`, `access "x" is unknown`)
	f(`{"access":"none"}`, `access "none" is unknown`)
	f(`{"access":null}`, "expected a string or an array, got null")
	f(`{"access":7}`, "expected a string or an array, got 7")
	f(`{"access":{}}`, "expected a string or an array, got {}")
	f(`{"access":[{"collection":"a","access":"m"}]}`, "m is not to single collections")
	f(`{"access":[{"collection":"a"}]}`, `access "" is unknown`)
	f(`{"access":[{"access":"r"}]}`, "length 0 invalid")
	f(`{"access":[{"collection":"a/b","access":"r"}]}`, "forbidden character")
	f(`{"access":[{"collection":"a","access":"r"},{"collection":"a","access":"rw"}]}`, `collection "a" is given twice`)
	f(`{"access":[{"collection":"a","access":"r","payload":{"must":[]}}]}`, "payload filters are not offered")
	f(`{"access":[{"collection":"a","access":"r","payloads":1}]}`, "unknown object member")
	f(`{"access":["a"]}`, "expected a list of {collection, access}")
	f(`{"access":[`+strings.TrimSuffix(strings.Repeat(`{"collection":"a","access":"r"},`, MaxCollections+1), ",")+`]}`, "101 collections")
	f(`{"access":"r","access":"m"}`, "duplicate object member name")
	f(`{"exp":"tomorrow"}`, "the token's claims")
	f(`{"exp":1}`, "the token has expired")
	f(`{"exp":0}`, "the token has expired")
	f(`{"exp":-1}`, "exp: -1 is not a number of seconds")
	f(`{"exp":1e300}`, "exp: 1e+300 is not a number of seconds")
	f(`{"nbf":4000000000}`, "not valid yet")
	f(`{"subject":"`+strings.Repeat("s", MaxSubjectBytes+1)+`"}`, "257 bytes")
	f(`{"subject":7}`, "the token's claims")
	f(`{"value_exists":{"collection":"c","matches":[]}}`, "0 matches")
	f(`{"value_exists":{"collection":"c"}}`, "0 matches")
	f(`{"value_exists":{"matches":[{"key":"a","value":1}]}}`, "length 0 invalid")
	f(`{"value_exists":{"collection":"c","matches":[{"key":"a","value":1.5}]}}`, "value_exists")
	f(`{"value_exists":{"collection":"c","matches":[{"key":"a"}]}}`, "value_exists")
	f(`{"value_exists":{"collection":"c","matches":[{"key":"a","value":1,"or":2}]}}`, "unknown object member")
	f(`{"value_exists":{"collection":"c","matches":[`+strings.TrimSuffix(strings.Repeat(`{"key":"a","value":1},`, MaxMatches+1), ",")+`]}}`, "17 matches")
	f(`{"value_exists":7}`, "expected {collection, matches}")
	f(`{"value_exists":[]}`, "expected {collection, matches}")
	f(`null`, "are not an object")
	f(`[]`, "are not an object")
	f(`{"pad":"`+strings.Repeat("x", MaxBytes)+`"}`, "longer than 8192 bytes")
}

// TestOnlyHS256 checks that nothing but a signature by the key and by HS256 is one.
func TestOnlyHS256(t *testing.T) {
	f := func(what, text string) {
		t.Helper()
		if c, err := Parse(key, text); err == nil || !strings.Contains(err.Error(), "signed by HS256 with the API key") {
			t.Errorf("%s: %+v, %v", what, c, err)
		}
	}
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	by := func(method jwt.SigningMethod, key any) string {
		t.Helper()
		text, err := jwt.NewWithClaims(method, jwt.MapClaims{}).SignedString(key)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	f("none", by(jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType))
	f("RS256", by(jwt.SigningMethodRS256, private))
	f("HS384", by(jwt.SigningMethodHS384, []byte(key)))
	f("HS512", by(jwt.SigningMethodHS512, []byte(key)))
	f("another key", by(jwt.SigningMethodHS256, []byte("other")))
	f("an empty key", by(jwt.SigningMethodHS256, []byte{}))
	good := by(jwt.SigningMethodHS256, []byte(key))
	if _, err := Parse(key, good); err != nil {
		t.Fatal(err)
	}
	parts := strings.Split(good, ".")
	f("no signature", parts[0]+"."+parts[1]+".")
	f("two parts", parts[0]+"."+parts[1])
	f("four parts", good+".x")
	f("other claims", parts[0]+"."+part(`{"access":"m"}`)+"."+parts[2])
	f("alg None", part(`{"alg":"None"}`)+"."+parts[1]+".")
	f("alg lower", part(`{"alg":"hs256"}`)+"."+parts[1]+"."+parts[2])
	f("no alg", part(`{}`)+"."+parts[1]+"."+parts[2])
	f("nothing", "..")
	f("dots", strings.Repeat(".", 1000))
}

func TestLeeway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		text, err := Sign(key, &Claims{Access: Read, Expires: time.Now().Add(time.Minute)})
		if err != nil {
			t.Fatal(err)
		}
		early := sign(t, fmt.Sprintf(`{"nbf":%d}`, time.Now().Add(2*time.Minute).Unix()))
		f := func(what, text, want string) {
			t.Helper()
			got := ""
			if _, err := Parse(key, text); err != nil {
				got = err.Error()
			}
			if got != want {
				t.Errorf("%s: %q, want %q", what, got, want)
			}
		}
		f("at first", text, "")
		f("two minutes early", early, "the token is not valid yet")
		time.Sleep(time.Minute + Leeway - time.Second)
		f("expired less than the leeway ago", text, "")
		time.Sleep(time.Second)
		f("expired the leeway ago", text, "the token has expired")
		f("early by the leeway", early, "")
	})
}

func TestSignRefuses(t *testing.T) {
	f := func(key string, c Claims, want string) {
		t.Helper()
		if text, err := Sign(key, &c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %s, %v, want %q", c, text, err, want)
		}
	}
	f("", Claims{}, "that is empty")
	f(key, Claims{Access: Write}, "rw is to single collections")
	f(key, Claims{Access: Read, Collections: []Collection{{"a", Read}}}, "cannot be collections besides")
	f(key, Claims{Collections: []Collection{{"a", None}}}, "none is not to single collections")
	f(key, Claims{Exists: &Exists{Collection: "c", Matches: []Match{{"a", json.RawMessage(`{`)}}}}, "value_exists")
	var many []Collection
	for i := range MaxCollections {
		many = append(many, Collection{fmt.Sprintf("%0255d", i), Read})
	}
	f(key, Claims{Collections: many}, "at most 8192 are accepted")
}

// FuzzDecode reads claims as if they had been signed. What is accepted can be signed, and says the same when read again.
func FuzzDecode(f *testing.F) {
	f.Add(`{}`)
	f.Add(`{"access":[{"collection":"a","access":"prw"}],"exp":4000000000,"subject":"s"}`)
	f.Add(`{"access":"r","value_exists":{"collection":"c","matches":[{"key":"a.b","value":true}]}}`)
	f.Add(`{"access":[{"collection":"a","access":"r","payload":null}],"nbf":1}`)
	f.Fuzz(func(t *testing.T, text string) {
		c, err := decode([]byte(text))
		if err != nil || len(text) > MaxBytes/2 {
			return
		}
		c.Expires = c.Expires.Truncate(time.Second)
		again, err := Sign(key, c)
		if err != nil {
			t.Fatalf("%q was read as %+v, which cannot be signed: %v", text, c, err)
		}
		got, err := Parse(key, again)
		if err != nil {
			if strings.Contains(err.Error(), "expired") {
				return // its half second was all it had
			}
			t.Fatalf("%q: %v", text, err)
		}
		if got.Access != c.Access || !reflect.DeepEqual(got.Collections, c.Collections) || got.Subject != c.Subject || !got.Expires.Equal(c.Expires) {
			t.Fatalf("%q was read as %+v and then as %+v", text, c, got)
		}
	})
}

func BenchmarkParse(b *testing.B) {
	text, err := Sign(key, &Claims{Subject: "someone", Expires: time.Now().Add(time.Hour), Collections: []Collection{{"one", Read}, {"two", Write}}})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Parse(key, text); err != nil {
			b.Fatal(err)
		}
	}
}
