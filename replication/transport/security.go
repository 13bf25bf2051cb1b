package transport

import (
	"crypto/ed25519"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	"github.com/vectord/vectord"
)

// Security says how nodes know each other. Exactly one of its three ways is set.
//
// The first two are the same mutual TLS 1.3 with different origins of the certificates. Either side of a connection
// demands that the other's certificate is signed by the cluster's authority for use as server or client, and nothing
// else: host names are not checked, because nodes move between addresses, and because what makes a node a member is
// the authority's signature alone. So whoever has one of its certificates can act as any node; keep them to nodes.
type Security struct {
	// CA, Certificate and Key are PEM files: the authority's certificates (several while one replaces another), the
	// node's own with those between it and the authority, and its key. They are read again when they change, so that new ones
	// need no restart; connections that are open stay. Files that do not fit each other change nothing until they do.
	CA, Certificate, Key string
	// Secret is at least MinSecretBytes long and known to all nodes of the cluster. The authority's key is derived from it,
	// and each node makes a certificate for itself at every start. Whoever connects to a node can try secrets against its
	// certificate on machines of their own, so it should be random: 32 characters of `openssl rand -hex 16` will do.
	Secret string
	// Insecure is plaintext without any proof of who dials, for tests on one machine. The address that is
	// listened on must be of the loopback interface.
	Insecure bool
}

const (
	// MinSecretBytes is the length of the shortest Security.Secret.
	MinSecretBytes = 16
	// secretIterations is what one guess of the secret costs: 600,000 rounds, as OWASP's advice for PBKDF2 with SHA-256 is.
	secretIterations = 600_000
	// secretSalt is not the cluster's id, so that a node with the secret and another id learns that, and not only that
	// its certificate is of an unknown authority.
	secretSalt = "vectord cluster authority, version 1"
	// reloadPeriod is how old what is known of the files may be when a connection begins.
	reloadPeriod = time.Second
)

// keyring is a Security at work.
type keyring struct {
	files  Security // of files; zero with a secret
	logger *slog.Logger

	mu      sync.Mutex // guards what follows
	roots   *x509.CertPool
	own     *tls.Certificate
	checked time.Time  // when the files were looked at
	seen    [3]fileSum // as they were then
}

// fileSum tells whether a file has changed.
type fileSum struct {
	modified time.Time
	size     int64
}

// newKeyring returns nil for plaintext.
func newKeyring(s Security, logger *slog.Logger) (*keyring, error) {
	files := s.CA != "" || s.Certificate != "" || s.Key != ""
	ways := 0
	for _, set := range []bool{files, s.Secret != "", s.Insecure} {
		if set {
			ways++
		}
	}
	if ways != 1 {
		return nil, vectord.Errorf(vectord.KindInvalid,
			"security of the cluster's port: set one of certificate files, a secret, or plaintext; %d are set", ways)
	}
	k := &keyring{logger: logger}
	switch {
	case s.Insecure:
		return nil, nil
	case files:
		if s.CA == "" || s.Certificate == "" || s.Key == "" {
			return nil, vectord.Errorf(vectord.KindInvalid, "security of the cluster's port: the files of CA, certificate and key are all needed")
		}
		k.files = s
		k.checked = time.Now()
		var err error
		if k.seen, err = k.look(); err != nil {
			return nil, err
		}
		return k, k.load()
	default:
		return k, k.mint(s.Secret)
	}
}

// always is the validity of what comes from a secret: who has a node's key has its secret, so an end would protect nothing,
// and a clock that is wrong would keep nodes apart.
var always = validity{from: time.Date(1970, 1, 1, 0, 0, 0, 0, time.UTC), to: time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)}

// deriveAuthority returns the authority of the cluster with a secret.
func deriveAuthority(secret string) (*authority, error) {
	if len(secret) < MinSecretBytes {
		return nil, vectord.Errorf(vectord.KindInvalid, "the cluster's secret has %d bytes, at least %d are needed", len(secret), MinSecretBytes)
	}
	seed, err := pbkdf2.Key(sha256.New, secret, []byte(secretSalt), secretIterations, ed25519.SeedSize)
	if err != nil {
		return nil, fmt.Errorf("derive the cluster's authority: %w", err)
	}
	return newAuthority(ed25519.NewKeyFromSeed(seed), "vectord cluster", always)
}

// mint makes a certificate for this node by the secret.
func (k *keyring) mint(secret string) error {
	authority, err := deriveAuthority(secret)
	if err != nil {
		return err
	}
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return fmt.Errorf("make a key: %w", err)
	}
	certificate, err := authority.sign(key.Public(), "vectord node", always)
	if err != nil {
		return err
	}
	k.roots = x509.NewCertPool()
	k.roots.AddCert(authority.certificate)
	k.own = &tls.Certificate{Certificate: [][]byte{certificate}, PrivateKey: key}
	return nil
}

// look returns what the files look like from outside.
func (k *keyring) look() (sums [3]fileSum, err error) {
	for i, name := range []string{k.files.CA, k.files.Certificate, k.files.Key} {
		info, err := os.Stat(name)
		if err != nil {
			return sums, fmt.Errorf("file of the cluster's port: %w", err)
		}
		sums[i] = fileSum{info.ModTime(), info.Size()}
	}
	return sums, nil
}

// load reads the files. If they are not sound, it changes nothing.
func (k *keyring) load() error {
	pem, err := os.ReadFile(k.files.CA)
	if err != nil {
		return fmt.Errorf("authority of the cluster: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return vectord.Errorf(vectord.KindInvalid, "authority of the cluster: %s has no certificate", k.files.CA)
	}
	own, err := tls.LoadX509KeyPair(k.files.Certificate, k.files.Key)
	if err != nil {
		return vectord.Errorf(vectord.KindInvalid, "certificate of the node: %v", err)
	}
	chain := make([]*x509.Certificate, len(own.Certificate))
	for i, der := range own.Certificate {
		if chain[i], err = x509.ParseCertificate(der); err != nil {
			return vectord.Errorf(vectord.KindInvalid, "certificate of the node: %v", err)
		}
	}
	for _, usage := range []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth} {
		if err := verify(roots, chain, usage); err != nil {
			return vectord.Errorf(vectord.KindInvalid, "certificate of the node: other nodes would refuse %s: %v", k.files.Certificate, err)
		}
	}
	k.roots, k.own = roots, &own
	return nil
}

// current returns what connections are to be made with, after a look at the files if the last was some time ago.
func (k *keyring) current() (*x509.CertPool, *tls.Certificate) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.files != (Security{}) && time.Since(k.checked) >= reloadPeriod {
		k.checked = time.Now()
		sums, err := k.look()
		switch {
		case err != nil:
			k.logger.Warn("the cluster's certificates cannot be read; the former ones stay", "error", err)
		case sums != k.seen:
			k.seen = sums
			if err := k.load(); err != nil {
				k.logger.Warn("the cluster's certificates have changed and cannot be used; the former ones stay", "error", err)
			} else {
				k.logger.Info("the cluster's certificates have changed and are in use")
			}
		}
	}
	return k.roots, k.own
}

func (k *keyring) server(raw net.Conn) *tls.Conn {
	c := k.config(x509.ExtKeyUsageClientAuth)
	c.ClientAuth = tls.RequireAnyClientCert // which VerifyConnection then checks
	return tls.Server(raw, c)
}

func (k *keyring) client(raw net.Conn) *tls.Conn {
	c := k.config(x509.ExtKeyUsageServerAuth)
	c.InsecureSkipVerify = true // of the host's name: VerifyConnection checks the rest
	return tls.Client(raw, c)
}

// config returns what both sides of a connection have in common. The other side must have a certificate for usage.
func (k *keyring) config(usage x509.ExtKeyUsage) *tls.Config {
	roots, own := k.current()
	return &tls.Config{
		MinVersion:   tls.VersionTLS13,
		Certificates: []tls.Certificate{*own},
		// Each connection shows its certificate: one that is no longer valid must not come in by a ticket.
		SessionTicketsDisabled: true,
		// Bulk in full records from the start: the first bytes of a connection are no web page.
		DynamicRecordSizingDisabled: true,
		VerifyConnection: func(s tls.ConnectionState) error {
			if err := verify(roots, s.PeerCertificates, usage); err != nil {
				return fmt.Errorf("the other side has no certificate of this cluster (has it another secret or authority?): %w", err)
			}
			return nil
		},
	}
}

// verify checks that a chain of certificates begins with one for usage and ends at a root.
func verify(roots *x509.CertPool, chain []*x509.Certificate, usage x509.ExtKeyUsage) error {
	if len(chain) == 0 {
		return errors.New("there is no certificate")
	}
	between := x509.NewCertPool()
	for _, c := range chain[1:] {
		between.AddCert(c)
	}
	_, err := chain[0].Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, KeyUsages: []x509.ExtKeyUsage{usage}})
	return err
}
