// Package access decides who is let in and what they may do, whatever door to the server they come by.
package access

import "github.com/vectord/vectord/internal/token"

// Permission is what an operation asks for and what a credential grants. Each includes the ones before it. The zero value is
// none, so that an operation that forgot to declare one is refused to everyone.
type Permission uint8

// The permissions.
const (
	Open     Permission = iota + 1 // no key needed
	Read                           // read points and settings
	Write                          // change points
	Maintain                       // make and drop payload indexes and snapshots
	Manage                         // change collections and aliases
)

func (p Permission) String() string {
	return [...]string{"undeclared", "open", "read", "write", "maintain", "manage"}[p]
}

// permissionOf says what each access of a token grants.
var permissionOf = [...]Permission{
	token.None:        Open,
	token.Read:        Read,
	token.WritePoints: Write,
	token.Write:       Maintain,
	token.Manage:      Manage,
}

// Scope says what an operation's permission is needed for. The zero value is none, so that an operation that forgot to declare
// one is refused to everyone.
type Scope uint8

// The scopes.
const (
	ScopeServer     Scope = iota + 1 // everything that the server has: opening single collections is not enough
	ScopeCollection                  // the collection that the request is for

	// ScopeListed is for what lists collections or what belongs to them: it is open to whoever may read anything, and
	// what the caller may not read is left out.
	ScopeListed
)

// Caller is who makes a request, as far as the credential tells. The zero value may do nothing.
type Caller struct {
	credential string // what kind it is, for texts and the log; never itself
	subject    string // of a token that names one
	everywhere Permission
	only       []token.Collection // what else the caller may do, collection by collection
}

// Credential names the kind of credential that the caller brought, for the log.
func (c *Caller) Credential() string { return c.credential }

// Subject returns whom the caller's token was made for, if it says.
func (c *Caller) Subject() string { return c.subject }

// May reports whether the caller has permission p for a collection, given by its own name.
func (c *Caller) May(p Permission, collection string) bool {
	if c.everywhere >= p {
		return true
	}
	for i := range c.only {
		if c.only[i].Name == collection {
			return permissionOf[c.only[i].Access] >= p
		}
	}
	return false
}

// Denial says why a caller was not let in. It is an error of its own, and not a vectord.Error, because nothing that the
// engine does leads to it. Each door to the server turns it into its own form of answer.
type Denial struct {
	Kind DenialKind
	Text string
}

func (d *Denial) Error() string { return d.Text }

// DenialKind tells denials apart.
type DenialKind uint8

// The kinds of denials.
const (
	NoKey     DenialKind = iota + 1 // no key, or a wrong one
	BadToken                        // a token that is not valid, or not valid any more
	Forbidden                       // what the credential does not permit
)
