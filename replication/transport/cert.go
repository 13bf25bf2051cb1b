package transport

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/vectord/vectord"
)

// How long certificates are valid if nothing else is said.
const (
	DefaultAuthorityValidity = 10 * 365 * 24 * time.Hour
	DefaultNodeValidity      = 365 * 24 * time.Hour
)

// clockSkew is how far back certificates are valid from, for nodes whose clocks are behind.
const clockSkew = time.Hour

const (
	pemCertificate = "CERTIFICATE"
	pemKey         = "PRIVATE KEY" // PKCS #8
)

// CreateAuthority makes the authority of a cluster, for Security.CA: an Ed25519 key and a certificate for it, which signs
// certificates of nodes and no further authorities. The files are PEM; the key's is readable by its owner only. It belongs
// in a safe place and not on the nodes. The certificate is valid for validFor, or DefaultAuthorityValidity if that is 0.
//
// Errors by kind: KindExists if a file is there already, which is then left as it is; KindInvalid for a validFor below 0.
// After an error neither file has been made.
func CreateAuthority(certificateFile, keyFile string, validFor time.Duration) error {
	period, err := validFromNow(validFor, DefaultAuthorityValidity)
	if err != nil {
		return err
	}
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return fmt.Errorf("make a key: %w", err)
	}
	a, err := newAuthority(key, "vectord cluster", period)
	if err != nil {
		return err
	}
	return writePair(certificateFile, keyFile, a.certificate.Raw, key)
}

// CreateCertificate makes the certificate of a node and its key, for Security.Certificate and Security.Key, signed by the
// authority in caFile with the key in caKeyFile. The name is for people who look at the certificate: nodes do not check
// it. The certificate is valid for validFor, or DefaultNodeValidity if that is 0, but not longer than the authority.
//
// Errors by kind: KindExists if a file is there already, which is then left as it is; KindInvalid for files that hold
// no authority or do not belong together, or a validFor below 0. After an error neither file has been made.
func CreateCertificate(caFile, caKeyFile, certificateFile, keyFile, name string, validFor time.Duration) error {
	period, err := validFromNow(validFor, DefaultNodeValidity)
	if err != nil {
		return err
	}
	a, err := readAuthority(caFile, caKeyFile)
	if err != nil {
		return err
	}
	if end := a.certificate.NotAfter; period.to.After(end) {
		period.to = end
	}
	if !period.to.After(time.Now()) {
		return vectord.Errorf(vectord.KindInvalid, "authority %s: not valid since %s", caFile, a.certificate.NotAfter.Format(time.RFC3339))
	}
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return fmt.Errorf("make a key: %w", err)
	}
	certificate, err := a.sign(key.Public(), name, period)
	if err != nil {
		return err
	}
	return writePair(certificateFile, keyFile, certificate, key)
}

// validity is when a certificate is valid.
type validity struct{ from, to time.Time }

func validFromNow(d, byDefault time.Duration) (validity, error) {
	if d < 0 {
		return validity{}, vectord.Errorf(vectord.KindInvalid, "validity of a certificate: %s is below 0", d)
	}
	if d == 0 {
		d = byDefault
	}
	now := time.Now()
	return validity{now.Add(-clockSkew), now.Add(d)}, nil
}

// authority signs certificates.
type authority struct {
	certificate *x509.Certificate
	key         crypto.Signer
}

// newAuthority returns an authority under its own signature. With one key and one validity that is the same each time.
func newAuthority(key ed25519.PrivateKey, name string, v validity) (*authority, error) {
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: name},
		NotBefore:             v.from,
		NotAfter:              v.to,
		KeyUsage:              x509.KeyUsageCertSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true, // no authorities below it
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("make an authority: %w", err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("make an authority: %w", err)
	}
	return &authority{certificate, key}, nil
}

// sign returns a certificate for a node's key, in DER.
func (a *authority) sign(public crypto.PublicKey, name string, v validity) ([]byte, error) {
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: name},
		NotBefore:             v.from,
		NotAfter:              v.to,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.certificate, public, a.key)
	if err != nil {
		return nil, fmt.Errorf("sign the certificate of a node: %w", err)
	}
	return der, nil
}

func readAuthority(certificateFile, keyFile string) (*authority, error) {
	der, err := readPEM(certificateFile, pemCertificate)
	if err != nil {
		return nil, err
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, vectord.Errorf(vectord.KindInvalid, "authority %s: %v", certificateFile, err)
	}
	if !certificate.IsCA {
		return nil, vectord.Errorf(vectord.KindInvalid, "authority %s: is the certificate of a node", certificateFile)
	}
	if der, err = readPEM(keyFile, pemKey); err != nil {
		return nil, err
	}
	parsed, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, vectord.Errorf(vectord.KindInvalid, "key of the authority %s: %v", keyFile, err)
	}
	key, ok := parsed.(crypto.Signer)
	if !ok {
		return nil, vectord.Errorf(vectord.KindInvalid, "key of the authority %s: %T does not sign", keyFile, parsed)
	}
	if public, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool }); !ok || !public.Equal(certificate.PublicKey) {
		return nil, vectord.Errorf(vectord.KindInvalid, "key of the authority %s: is not that of %s", keyFile, certificateFile)
	}
	return &authority{certificate, key}, nil
}

// readPEM returns the first block of a file, which must be of the kind.
func readPEM(name, kind string) ([]byte, error) {
	data, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(data)
	if block == nil || block.Type != kind {
		return nil, vectord.Errorf(vectord.KindInvalid, "%s: does not begin with a PEM block %q", name, kind)
	}
	return block.Bytes, nil
}

// writePair writes a certificate and its key to new files, or neither.
func writePair(certificateFile, keyFile string, certificate []byte, key crypto.Signer) error {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return fmt.Errorf("key %s: %w", keyFile, err)
	}
	if err := writePEM(keyFile, pemKey, der, 0o600); err != nil {
		return err
	}
	if err := writePEM(certificateFile, pemCertificate, certificate, 0o644); err != nil {
		os.Remove(keyFile)
		return err
	}
	return nil
}

// writePEM writes a new file and waits until the disk has it. After an error the file is not there, unless it was before.
func writePEM(name, kind string, der []byte, mode fs.FileMode) (err error) {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if errors.Is(err, fs.ErrExist) {
		return vectord.Errorf(vectord.KindExists, "%s is there already and is not overwritten", name)
	}
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(name)
		}
	}()
	err = pem.Encode(f, &pem.Block{Type: kind, Bytes: der})
	if err == nil {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return syncDir(filepath.Dir(name))
}

func syncDir(name string) error {
	d, err := os.Open(name)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
