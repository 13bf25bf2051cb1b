package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/vectord/vectord/internal/token"
)

type tokenCmd struct {
	APIKey      string        `help:"Key of the server, which the token is signed with." placeholder:"KEY" name:"api-key" setting:""`
	APIKeyFile  string        `help:"File with that key in its first line." placeholder:"FILE" name:"api-key-file" setting:""`
	Access      string        `help:"What the token opens everywhere: r to read, m for everything." enum:"r,m," default:"" placeholder:"r|m"`
	Collections []string      `help:"A collection that the token opens, to r (read), prw (points too) or rw (indexes and snapshots too); repeatable." name:"collection" sep:"none" placeholder:"NAME=ACCESS"`
	Exp         time.Duration `help:"How long the token is valid; 0 means for ever." default:"24h" placeholder:"TIME"`
	Subject     string        `help:"Whom it is for; shown in the server's log." placeholder:"NAME"`
	ValueExists string        `help:"Collection that must have a point with the values of --match, or else the token is not valid." placeholder:"NAME"`
	Match       []string      `help:"With --value-exists: a payload path and its value, a string, an integer, true or false; repeatable." sep:"none" placeholder:"PATH=VALUE"`
}

// Help is shown by token --help.
func (tokenCmd) Help() string {
	return `Examples:

    vectord token --api-key-file key --access r --exp 720h
    vectord token --api-key-file key --collection papers=r --collection notes=prw --subject alice
    vectord token --api-key-file key --access m --exp 0 --value-exists users --match name=alice

The token is printed. It takes the place of a key, as api-key or as a bearer token, with a server that runs with --jwt-rbac
and this key as its --api-key. It cannot be taken back before it expires, except by changing the key, or by deleting the
point that --value-exists asks for.

A value of --match that is an integer, true or false is taken for that; in quotes it is a string: --match 'n="7"'.`
}

// Run prints a token.
func (c *tokenCmd) Run(s *session) error {
	key, err := secret("api-key", c.APIKey, c.APIKeyFile)
	if err != nil {
		return err
	}
	if key == "" {
		return errors.New("a token is signed with the server's key: give --api-key or --api-key-file")
	}
	claims, err := c.claims()
	if err != nil {
		return err
	}
	text, err := token.Sign(key, claims)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(s.stdout, text)
	return err
}

func (c *tokenCmd) claims() (*token.Claims, error) {
	claims := &token.Claims{Subject: c.Subject}
	switch {
	case c.Access != "" && len(c.Collections) > 0:
		return nil, errors.New("--access opens every collection and --collection single ones, give one of the two")
	case c.Access == "" && len(c.Collections) == 0:
		return nil, errors.New("give --access or --collection, for what the token shall open")
	case c.Exp < 0:
		return nil, fmt.Errorf("--exp: %v is in the past", c.Exp)
	case (c.ValueExists == "") != (len(c.Match) == 0):
		return nil, errors.New("--value-exists and --match belong together, only one is given")
	}
	var err error
	if c.Access != "" {
		if claims.Access, err = token.ParseAccess(c.Access); err != nil {
			return nil, fmt.Errorf("--access: %w", err)
		}
	}
	for _, pair := range c.Collections {
		at := strings.LastIndexByte(pair, '=')
		if at < 0 {
			return nil, fmt.Errorf("--collection: expected NAME=ACCESS, got %q", pair)
		}
		access, err := token.ParseAccess(pair[at+1:])
		if err != nil {
			return nil, fmt.Errorf("--collection %s: %w", pair, err)
		}
		claims.Collections = append(claims.Collections, token.Collection{Name: pair[:at], Access: access})
	}
	if c.Exp > 0 {
		claims.Expires = time.Now().Add(c.Exp)
	}
	if c.ValueExists != "" {
		claims.Exists = &token.Exists{Collection: c.ValueExists}
		for _, pair := range c.Match {
			path, value, ok := strings.Cut(pair, "=")
			if !ok {
				return nil, fmt.Errorf("--match: expected PATH=VALUE, got %q", pair)
			}
			claims.Exists.Matches = append(claims.Exists.Matches, token.Match{Key: path, Value: matchValue(value)})
		}
	}
	return claims, nil
}

// matchValue returns a value as JSON: what is a scalar of JSON other than null and a float as it stands, all else as a string.
func matchValue(text string) json.RawMessage {
	var v any
	if err := json.Unmarshal([]byte(text), &v); err == nil {
		switch v.(type) {
		case bool, string:
			return json.RawMessage(text)
		case float64:
			if !strings.ContainsAny(text, ".eE") {
				return json.RawMessage(text)
			}
		}
	}
	quoted, err := json.Marshal(text)
	if err != nil {
		panic(fmt.Sprintf("a string without a JSON form: %v", err)) // there is none
	}
	return quoted
}
