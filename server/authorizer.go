package server

import (
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"strings"

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

// authorizer decides who is let in and what they may do. It knows nothing of HTTP, so that every door to the server can
// ask it. Its methods may be called at the same time.
type authorizer struct {
	keys     []key
	tokenKey string // what tokens are signed with; empty where they are not accepted
	exists   *existsChecks
	engine   aliasResolver
}

// key is a key that opens the server. It keeps a digest, which makes comparing take the same time for keys of any length.
type key struct {
	name   string
	digest [sha256.Size]byte
	grants permission
}

// aliasResolver is what an authorizer asks of the engine.
type aliasResolver interface {
	ResolveAlias(name string) string
}

// newAuthorizer panics if tokens shall be accepted without a key to check them with: everyone could sign them.
func newAuthorizer(o *Options, e Engine) authorizer {
	a := authorizer{engine: e}
	for _, k := range []struct {
		name, text string
		grants     permission
	}{
		{credentialKey, o.APIKey, permissionManage},
		{credentialAlternative, o.AltAPIKey, permissionManage},
		{credentialReadOnly, o.ReadOnlyAPIKey, permissionRead},
	} {
		if k.text != "" {
			a.keys = append(a.keys, key{k.name, sha256.Sum256([]byte(k.text)), k.grants})
		}
	}
	if o.JWTRBAC {
		if o.APIKey == "" {
			panic("server: Options.JWTRBAC without an APIKey")
		}
		a.tokenKey, a.exists = o.APIKey, newExistsChecks(e)
	}
	return a
}

// authenticate returns who brings a credential; an empty one is none. Its error is a *denial, or the engine's where a token
// depends on a point and that could not be looked for.
func (a *authorizer) authenticate(credential string) (caller, error) {
	if len(a.keys) == 0 {
		return caller{credential: credentialNone, everywhere: permissionManage}, nil
	}
	if credential == "" {
		return caller{}, &denial{denialNoKey, "Must provide an API key or an Authorization bearer token"}
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
		return caller{credential: found.name, everywhere: found.grants}, nil
	case a.tokenKey != "" && strings.Count(credential, ".") == 2: // as tokens have
		return a.readToken(credential)
	}
	return caller{}, &denial{denialNoKey, "Invalid API key or token"}
}

func (a *authorizer) readToken(text string) (caller, error) {
	claims, err := token.Parse(a.tokenKey, text)
	if err != nil {
		return caller{}, &denial{denialBadToken, err.Error()}
	}
	if claims.Exists != nil {
		switch exists, err := a.exists.check(claims.Exists); {
		case err != nil:
			return caller{}, err
		case !exists:
			return caller{}, &denial{denialBadToken, "the token is not valid any more: no point has the values that it depends on"}
		}
	}
	return caller{credential: credentialToken, subject: claims.Subject,
		everywhere: permissionOf[claims.Access], only: claims.Collections}, nil
}

// authorize returns the refusal for a caller without the permission that something asks for, or else the name to go on
// with. Where single collections are what the caller may use, that is the collection's own name instead of an alias: the
// alias could be moved between this check and its use. collection counts with scopeCollection only.
func (a *authorizer) authorize(c *caller, needed permission, s scope, collection string) (name string, err error) {
	who, what := "key", needed.String()
	if c.credential == credentialToken {
		who = "token"
	}
	declared := needed >= permissionOpen && s >= scopeServer
	switch {
	case declared && c.everywhere >= needed:
		return collection, nil
	case !declared:
	case s == scopeListed && needed == permissionRead && c.everywhere >= permissionOpen:
		return collection, nil
	case s == scopeCollection:
		if name = a.engine.ResolveAlias(collection); c.may(needed, name) {
			return name, nil
		}
		if c.everywhere < permissionRead { // else it does not matter which collection it is
			what += fmt.Sprintf(" collection `%s`", collection)
		}
	}
	return "", &denial{denialForbidden, fmt.Sprintf("the %s does not permit to %s", who, what)}
}
