package access

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"strings"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/internal/token"
)

// The kinds of credentials, as the log names them.
const (
	credentialNone        = "none" // where the server asks for none
	credentialKey         = "api-key"
	credentialAlternative = "alt-api-key"
	credentialReadOnly    = "read-only-api-key"
	credentialToken       = "token"
)

// Authorizer knows the keys that open the server. Its methods may be called at the same time.
type Authorizer struct {
	keys     []key
	tokenKey string // what tokens are signed with; empty where they are not accepted
	exists   *existsChecks
	engine   Engine
}

// key is a key that opens the server. It keeps a digest, which makes comparing take the same time for keys of any length.
type key struct {
	name   string
	digest [sha256.Size]byte
	grants Permission
}

// Engine is what an Authorizer asks.
type Engine interface {
	// ResolveAlias returns the collection that an alias stands for; any other name as it is.
	ResolveAlias(name string) string
	Count(ctx context.Context, collection string, f *vectord.Filter) (int, error)
}

// Keys are what opens a server. If all keys are empty none is asked for.
type Keys struct {
	APIKey         string // permits everything
	AltAPIKey      string // permits everything too, so that keys can be changed one after the other
	ReadOnlyAPIKey string // permits reading
	JWTRBAC        bool   // tokens open what they say (see package token); they are signed with APIKey, which must be given
}

// New returns an authorizer of keys, which asks e about aliases and what tokens depend on. It panics if tokens shall be
// accepted without a key to check them with: everyone could sign them.
func New(keys Keys, e Engine) *Authorizer {
	a := &Authorizer{engine: e}
	for _, k := range []struct {
		name, text string
		grants     Permission
	}{
		{credentialKey, keys.APIKey, Manage},
		{credentialAlternative, keys.AltAPIKey, Manage},
		{credentialReadOnly, keys.ReadOnlyAPIKey, Read},
	} {
		if k.text != "" {
			a.keys = append(a.keys, key{k.name, sha256.Sum256([]byte(k.text)), k.grants})
		}
	}
	if keys.JWTRBAC {
		if keys.APIKey == "" {
			panic("access: JWTRBAC without an APIKey")
		}
		a.tokenKey, a.exists = keys.APIKey, newExistsChecks(e)
	}
	return a
}

// Authenticate returns who brings a credential; an empty one is none. Its error is a *Denial, or the engine's where a token
// depends on a point and that could not be looked for.
func (a *Authorizer) Authenticate(credential string) (Caller, error) {
	if len(a.keys) == 0 {
		return Caller{credential: credentialNone, everywhere: Manage}, nil
	}
	if credential == "" {
		return Caller{}, &Denial{NoKey, "Must provide an API key or an Authorization bearer token"}
	}
	digest := sha256.Sum256([]byte(credential))
	var found *key
	for i := range a.keys { // all of them, so that the time tells nothing
		if subtle.ConstantTimeCompare(digest[:], a.keys[i].digest[:]) == 1 {
			found = &a.keys[i]
		}
	}
	switch {
	case found != nil:
		return Caller{credential: found.name, everywhere: found.grants}, nil
	case a.tokenKey != "" && strings.Count(credential, ".") == 2: // as tokens have
		return a.readToken(credential)
	}
	return Caller{}, &Denial{NoKey, "Invalid API key or token"}
}

func (a *Authorizer) readToken(text string) (Caller, error) {
	claims, err := token.Parse(a.tokenKey, text)
	if err != nil {
		return Caller{}, &Denial{BadToken, err.Error()}
	}
	if claims.Exists != nil {
		switch exists, err := a.exists.check(claims.Exists); {
		case err != nil:
			return Caller{}, err
		case !exists:
			return Caller{}, &Denial{BadToken, "the token is not valid any more: no point has the values that it depends on"}
		}
	}
	return Caller{credential: credentialToken, subject: claims.Subject,
		everywhere: permissionOf[claims.Access], only: claims.Collections}, nil
}

// Authorize returns the refusal for a caller without the permission that something asks for, or else the name to go on
// with. Where single collections are what the caller may use, that is the collection's own name instead of an alias: the
// alias could be moved between this check and its use. collection counts with ScopeCollection only.
func (a *Authorizer) Authorize(c *Caller, needed Permission, s Scope, collection string) (name string, err error) {
	who, what := "key", needed.String()
	if c.credential == credentialToken {
		who = "token"
	}
	declared := needed >= Open && s >= ScopeServer
	switch {
	case declared && c.everywhere >= needed:
		return collection, nil
	case !declared:
	case s == ScopeListed && needed == Read && c.everywhere >= Open:
		return collection, nil
	case s == ScopeCollection:
		if name = a.engine.ResolveAlias(collection); c.May(needed, name) {
			return name, nil
		}
		if c.everywhere < Read { // else it does not matter which collection it is
			what += fmt.Sprintf(" collection `%s`", collection)
		}
	}
	return "", &Denial{Forbidden, fmt.Sprintf("the %s does not permit to %s", who, what)}
}
