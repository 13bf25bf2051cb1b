// Package token makes and reads the tokens that open less than a key does: JSON Web Tokens (RFC 7519), signed by HS256 with
// the server's API key.
package token

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"time"

	jsonv2 "github.com/go-json-experiment/json"
	"github.com/golang-jwt/jwt/v5"

	"github.com/vectord/vectord"
)

// The limits of a token.
const (
	MaxBytes        = 8 << 10 // of its text, which travels in a header
	MaxSubjectBytes = 256
	MaxCollections  = 100
	MaxMatches      = 16 // of Exists

	// Leeway is how far the clocks of who makes a token and of the server may differ.
	Leeway = 30 * time.Second
)

// maxUnixSeconds is the last second of the year 9999, up to which times can be computed with.
const maxUnixSeconds = 253402300799

// Access says what a token permits. Each includes the ones before it.
type Access uint8

// What tokens permit.
const (
	None        Access = iota
	Read               // "r": read points and settings
	WritePoints        // "prw", of a collection: change points too
	Write              // "rw", of a collection: make payload indexes and snapshots too
	Manage             // "m", of everything: everything
)

// String returns the access as tokens spell it.
func (a Access) String() string { return [...]string{"none", "r", "prw", "rw", "m"}[a] }

// ParseAccess reads what String writes, except for None.
func ParseAccess(text string) (Access, error) {
	for a := Read; a <= Manage; a++ {
		if a.String() == text {
			return a, nil
		}
	}
	return None, vectord.Errorf(vectord.KindInvalid, "access %q is unknown, expected r, prw, rw or m", shorten(text))
}

// Claims are what a token says.
type Claims struct {
	Subject     string       // whom it was made for, for the log; may be empty
	Expires     time.Time    // zero means never
	Access      Access       // to everything, Read or Manage; None if it opens single collections
	Collections []Collection // what it opens if Access is None; all other collections stay shut
	Exists      *Exists      // if not nil, the token is valid only while this holds
}

// Collection is one that a token opens. It is named by its own name: an alias opens nothing, because it may be moved to
// another collection while the token is out.
type Collection struct {
	Name   string
	Access Access // Read, WritePoints or Write
}

// Exists asks for a point of a collection whose payload matches all of Matches.
type Exists struct {
	Collection string  `json:"collection"`
	Matches    []Match `json:"matches"`
}

// Match asks for a value at a payload path: a string, an integer or a bool, as JSON.
type Match struct {
	Key   string          `json:"key"`
	Value json.RawMessage `json:"value"`
}

// Filter returns the filter that the point has to pass.
func (e *Exists) Filter() (*vectord.Filter, error) {
	type match struct {
		Value json.RawMessage `json:"value"`
	}
	type condition struct {
		Key   string `json:"key"`
		Match match  `json:"match"`
	}
	var must []condition
	for _, m := range e.Matches {
		must = append(must, condition{m.Key, match{m.Value}})
	}
	text, err := json.Marshal(map[string]any{"must": must})
	if err != nil {
		return nil, vectord.Errorf(vectord.KindInvalid, "value_exists: %v", err)
	}
	f, err := vectord.ParseFilter(text)
	if err != nil {
		return nil, fmt.Errorf("value_exists: %w", err)
	}
	return f, nil
}

// check refuses claims that contradict themselves or go beyond the limits.
func (c *Claims) check() error {
	if len(c.Subject) > MaxSubjectBytes {
		return vectord.Errorf(vectord.KindInvalid, "subject: %d bytes, at most %d are accepted", len(c.Subject), MaxSubjectBytes)
	}
	switch c.Access {
	case None:
	case Read, Manage:
		if len(c.Collections) > 0 {
			return vectord.Errorf(vectord.KindInvalid, "access: %v is to everything, there cannot be collections besides", c.Access)
		}
	default:
		return vectord.Errorf(vectord.KindInvalid, "access: %v is to single collections, to everything it is r or m", c.Access)
	}
	if len(c.Collections) > MaxCollections {
		return vectord.Errorf(vectord.KindInvalid, "access: %d collections, at most %d are accepted", len(c.Collections), MaxCollections)
	}
	seen := make(map[string]bool, len(c.Collections))
	for _, one := range c.Collections {
		if err := vectord.CheckCollectionName(one.Name); err != nil {
			return fmt.Errorf("access: %w", err)
		}
		if seen[one.Name] {
			return vectord.Errorf(vectord.KindInvalid, "access: collection %q is given twice", one.Name)
		}
		seen[one.Name] = true
		if one.Access < Read || one.Access > Write {
			return vectord.Errorf(vectord.KindInvalid, "access: %v is not to single collections, expected r, prw or rw", one.Access)
		}
	}
	return c.Exists.check()
}

func (e *Exists) check() error {
	switch {
	case e == nil:
		return nil
	case len(e.Matches) == 0 || len(e.Matches) > MaxMatches:
		return vectord.Errorf(vectord.KindInvalid, "value_exists: %d matches, from 1 to %d are accepted", len(e.Matches), MaxMatches)
	}
	if err := vectord.CheckCollectionName(e.Collection); err != nil {
		return fmt.Errorf("value_exists: %w", err)
	}
	_, err := e.Filter()
	return err
}

// Sign returns the text of a token. The key is the server's API key.
func Sign(key string, c *Claims) (string, error) {
	if key == "" {
		return "", errors.New("a token is signed with the API key, and that is empty")
	}
	if err := c.check(); err != nil {
		return "", err
	}
	wire := jwt.MapClaims{"access": c.Access.String()}
	if c.Access == None {
		list := make([]map[string]string, len(c.Collections))
		for i, one := range c.Collections {
			list[i] = map[string]string{"collection": one.Name, "access": one.Access.String()}
		}
		wire["access"] = list
	}
	if c.Subject != "" {
		wire["subject"] = c.Subject
	}
	if !c.Expires.IsZero() {
		wire["exp"] = c.Expires.Unix()
	}
	if c.Exists != nil {
		wire["value_exists"] = c.Exists
	}
	text, err := jwt.NewWithClaims(jwt.SigningMethodHS256, wire).SignedString([]byte(key))
	if err != nil {
		return "", fmt.Errorf("sign the token: %w", err)
	}
	if len(text) > MaxBytes {
		return "", vectord.Errorf(vectord.KindInvalid, "the token would have %d bytes, at most %d are accepted", len(text), MaxBytes)
	}
	return text, nil
}

// unread keeps the claims as they came, so that nothing of them is read before the signature was checked.
type unread struct {
	jwt.RegisteredClaims // satisfies jwt.Claims
	text                 []byte
}

// UnmarshalJSON implements json.Unmarshaler.
func (u *unread) UnmarshalJSON(b []byte) error {
	u.text = append(u.text, b...)
	return nil
}

// signed checks signatures. The times are checked afterwards, by times.
var signed = jwt.NewParser(jwt.WithValidMethods([]string{jwt.SigningMethodHS256.Alg()}), jwt.WithoutClaimsValidation(), jwt.WithStrictDecoding())

var times = jwt.NewValidator(jwt.WithLeeway(Leeway))

// Parse checks a token, its signature first, and returns what it says. The key is the server's API key and must not be
// empty. Errors are fit to be shown to a client. Claims beside those that Claims has are ignored, as RFC 7519 asks, but for
// nbf, before which a token is not valid; in the claims that it has nothing is.
func Parse(key, text string) (*Claims, error) {
	if len(text) > MaxBytes {
		return nil, vectord.Errorf(vectord.KindInvalid, "the token is longer than %d bytes", MaxBytes)
	}
	var u unread
	if _, err := signed.ParseWithClaims(text, &u, func(*jwt.Token) (any, error) { return []byte(key), nil }); err != nil {
		return nil, vectord.Errorf(vectord.KindInvalid, "the token is not one that was signed by HS256 with the API key")
	}
	return decode(u.text)
}

// decodeAccess reads the claim access in either of its forms.
func decodeAccess(b json.RawMessage) (everything Access, collections []Collection, err error) {
	if b[0] != '[' {
		var text *string
		if err := jsonv2.Unmarshal(b, &text); err != nil || text == nil {
			return None, nil, vectord.Errorf(vectord.KindInvalid, "access: expected a string or an array, got %s", shorten(string(b)))
		}
		everything, err = ParseAccess(*text)
		return everything, nil, err
	}
	var list []struct {
		Collection string          `json:"collection"`
		Access     string          `json:"access"`
		Payload    json.RawMessage `json:"payload"`
	}
	if err := jsonv2.Unmarshal(b, &list, jsonv2.RejectUnknownMembers(true)); err != nil {
		return None, nil, vectord.Errorf(vectord.KindInvalid, "access: expected a list of {collection, access}: %v", err)
	}
	for _, one := range list {
		if one.Payload != nil && string(one.Payload) != "null" {
			return None, nil, vectord.Errorf(vectord.KindInvalid, "access: payload filters are not offered, and without it the token would open more")
		}
		access, err := ParseAccess(one.Access)
		if err != nil {
			return None, nil, err
		}
		collections = append(collections, Collection{one.Collection, access})
	}
	return None, collections, nil
}

// decode reads and checks claims whose signature was right. What is misspelt within access or value_exists is refused: it
// was meant to restrict.
func decode(text []byte) (*Claims, error) {
	var wire struct {
		Exp     *float64        `json:"exp"`
		Nbf     *float64        `json:"nbf"`
		Access  json.RawMessage `json:"access"`
		Exists  json.RawMessage `json:"value_exists"`
		Subject string          `json:"subject"`
	}
	if len(text) == 0 || text[0] != '{' {
		return nil, vectord.Errorf(vectord.KindInvalid, "the token's claims are not an object")
	}
	if err := jsonv2.Unmarshal(text, &wire); err != nil {
		return nil, vectord.Errorf(vectord.KindInvalid, "the token's claims: %v", err)
	}
	exp, err := numericDate("exp", wire.Exp)
	if err != nil {
		return nil, err
	}
	nbf, err := numericDate("nbf", wire.Nbf)
	if err != nil {
		return nil, err
	}
	switch err := times.Validate(jwt.RegisteredClaims{ExpiresAt: exp, NotBefore: nbf}); {
	case errors.Is(err, jwt.ErrTokenExpired):
		return nil, vectord.Errorf(vectord.KindInvalid, "the token has expired")
	case err != nil:
		return nil, vectord.Errorf(vectord.KindInvalid, "the token is not valid yet")
	}
	c := &Claims{Subject: wire.Subject, Access: Manage}
	if exp != nil {
		c.Expires = exp.Time
	}
	if wire.Access != nil {
		if c.Access, c.Collections, err = decodeAccess(wire.Access); err != nil {
			return nil, err
		}
	}
	if wire.Exists != nil && string(wire.Exists) != "null" {
		c.Exists = new(Exists)
		if err := jsonv2.Unmarshal(wire.Exists, c.Exists, jsonv2.RejectUnknownMembers(true)); err != nil {
			return nil, vectord.Errorf(vectord.KindInvalid, "value_exists: expected {collection, matches}: %v", err)
		}
	}
	if err := c.check(); err != nil {
		return nil, err
	}
	return c, nil
}

// numericDate returns the time of a claim in seconds since 1970, or nil if there is none.
func numericDate(claim string, seconds *float64) (*jwt.NumericDate, error) {
	if seconds == nil {
		return nil, nil
	}
	if !(*seconds >= 0 && *seconds <= maxUnixSeconds) {
		return nil, vectord.Errorf(vectord.KindInvalid, "%s: %v is not a number of seconds since 1970, at most %d", claim, *seconds, int64(maxUnixSeconds))
	}
	whole, fraction := math.Modf(*seconds)
	return &jwt.NumericDate{Time: time.Unix(int64(whole), int64(fraction*1e9))}, nil
}

// maxExcerpt is how many bytes of a wrong value an error repeats.
const maxExcerpt = 60

func shorten(text string) string {
	if len(text) > maxExcerpt {
		return text[:maxExcerpt] + "…"
	}
	return text
}
