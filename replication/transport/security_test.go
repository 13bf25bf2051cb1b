package transport

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"errors"
	"io"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vectord/vectord"
)

const secret = "a secret of 24 characters"

// echoes makes a node answer methodEcho.
func echoes(n *Transport) *Transport {
	n.Handle(methodEcho, func(_ context.Context, _ string, body []byte) ([]byte, error) { return body, nil })
	n.Start()
	return n
}

// TestSecret: nodes with one secret understand each other, others do not, whichever side has the wrong one.
func TestSecret(t *testing.T) {
	start := time.Now()
	server := echoes(listen(t, Options{Security: Security{Secret: secret}}))
	t.Logf("a node with a secret is there after %s", time.Since(start))
	friend := listen(t, Options{Security: Security{Secret: secret}})
	stranger := listen(t, Options{Security: Security{Secret: secret + "?"}})
	holder := echoes(listen(t, Options{}))
	call := func(from, to *Transport) error {
		_, err := from.Call(t.Context(), to.Addr().String(), methodEcho, []byte("x"))
		return err
	}
	if err := call(friend, server); err != nil {
		t.Errorf("with the secret: %v", err)
	}
	for _, from := range []*Transport{stranger, holder} {
		err := call(from, server)
		check(t, "a stranger", err, ErrUnreachable, vectord.KindOverloaded)
		if err == nil || !strings.Contains(err.Error(), "another secret or authority") {
			t.Errorf("a stranger is told: %v", err)
		}
	}
	check(t, "a node with certificates", call(friend, holder), ErrUnreachable, vectord.KindOverloaded)
}

// TestServerChecksClient: a client that does not check the server's certificate gets no further for that.
func TestServerChecksClient(t *testing.T) {
	server := echoes(listen(t, Options{Security: Security{Secret: secret}}))
	other := listen(t, Options{})
	_, own := other.keys.current()
	f := func(what string, certificates []tls.Certificate, maxVersion uint16) {
		t.Helper()
		raw, err := net.Dial("tcp", server.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer raw.Close()
		raw.SetDeadline(time.Now().Add(patience))
		conn := tls.Client(raw, &tls.Config{InsecureSkipVerify: true, Certificates: certificates, MaxVersion: maxVersion})
		err = conn.Handshake()
		if err == nil { // a client of TLS 1.3 is done before the server is
			h := hello{version: version, cluster: "test", kind: kindSmall, from: "x:1"}
			conn.Write(h.append(nil))
			err = readAnswer(conn)
		}
		var refusal *vectord.Error
		if err == nil || errors.As(err, &refusal) {
			t.Errorf("%s has come beyond TLS: %v", what, err)
		}
	}
	f("no certificate", nil, 0)
	f("a certificate of another authority", []tls.Certificate{*own}, 0)
	_, right := server.keys.current()
	f("TLS 1.2", []tls.Certificate{*right}, tls.VersionTLS12)
}

// TestUsage: a certificate of the authority must be for servers and clients, and valid now.
func TestUsage(t *testing.T) {
	server := echoes(listen(t, Options{Security: Security{Secret: secret}}))
	holder := listen(t, Options{Security: Security{Secret: secret}})
	authority := authorityOf(t, secret)
	now := time.Now()
	f := func(what string, v validity, usage ...x509.ExtKeyUsage) {
		t.Helper()
		public, key, _ := ed25519.GenerateKey(rand.Reader)
		der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "x"},
			NotBefore: v.from, NotAfter: v.to, ExtKeyUsage: usage}, authority.certificate, public, authority.key)
		if err != nil {
			t.Fatal(err)
		}
		holder.keys.mu.Lock()
		holder.keys.own = &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
		holder.keys.mu.Unlock()
		_, err = holder.Call(t.Context(), server.Addr().String(), methodEcho, nil)
		if ok := what == ""; ok != (err == nil) {
			t.Errorf("%s: %v", what, err)
		}
		holder.peers[server.Addr().String()].small.conn.breakForTest()
	}
	hour := validity{now.Add(-time.Hour), now.Add(time.Hour)}
	f("", hour, x509.ExtKeyUsageClientAuth)
	f("for servers", hour, x509.ExtKeyUsageServerAuth)
	f("for mail", hour, x509.ExtKeyUsageEmailProtection)
	f("expired", validity{now.Add(-2 * time.Hour), now.Add(-time.Hour)}, x509.ExtKeyUsageClientAuth)
	f("not valid yet", validity{now.Add(time.Hour), now.Add(2 * time.Hour)}, x509.ExtKeyUsageClientAuth)
}

func (c *clientConn) breakForTest() {
	if c != nil {
		c.fail(errors.New("of the test"))
	}
}

// authorityOf returns the authority that a secret gives.
func authorityOf(t *testing.T, secret string) *authority {
	t.Helper()
	a, err := deriveAuthority(secret)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// TestSecretGivesOneAuthority pins the derivation: nodes of all versions must come to the same key.
func TestSecretGivesOneAuthority(t *testing.T) {
	a := authorityOf(t, secret)
	key, ok := a.certificate.PublicKey.(ed25519.PublicKey)
	if !ok || len(key) != ed25519.PublicKeySize {
		t.Fatalf("the authority's key is %T", a.certificate.PublicKey)
	}
	const want = 0x3fe9a97a9e67e2df // as computed by Python and OpenSSL
	if got := binary.BigEndian.Uint64(key); got != want {
		t.Errorf("the authority's key begins with %#x, want %#x", got, uint64(want))
	}
}

func TestOptions(t *testing.T) {
	good := files(t)
	f := func(what, addr string, o Options) {
		t.Helper()
		if o.Cluster == "" {
			o.Cluster = "test"
		}
		n, err := Listen(addr, o)
		if err == nil {
			n.Close()
		}
		if vectord.KindOf(err) != vectord.KindInvalid {
			t.Errorf("%s: %v", what, err)
		}
	}
	f("no security", "127.0.0.1:0", Options{})
	f("two securities", "127.0.0.1:0", Options{Security: Security{Secret: secret, Insecure: true}})
	f("files and a secret", "127.0.0.1:0", Options{Security: Security{Secret: secret, CA: good.CA}})
	f("no key", "127.0.0.1:0", Options{Security: Security{CA: good.CA, Certificate: good.Certificate}})
	f("a short secret", "127.0.0.1:0", Options{Security: Security{Secret: "fifteen letters"}})
	f("plaintext for all", ":0", Options{Security: Security{Insecure: true}})
	f("plaintext for all, IPv4", "0.0.0.0:0", Options{Security: Security{Insecure: true}})
	f("plaintext for a network", "192.0.2.1:0", Options{Security: Security{Insecure: true}})
	f("nothing to dial", ":0", Options{Security: good})
	f("an address without a port", "127.0.0.1:0", Options{Security: good, Advertise: "node"})
	f("a long address", "127.0.0.1:0", Options{Security: good, Advertise: strings.Repeat("x", 255) + ":1"})
	f("a long id", "127.0.0.1:0", Options{Security: good, Cluster: strings.Repeat("x", 65)})
	f("a bound below 0", "127.0.0.1:0", Options{Security: good, Queue: -1})
	f("the key of another certificate", "127.0.0.1:0", Options{Security: Security{CA: good.CA, Certificate: good.Certificate, Key: files(t).Key}})
	other := files(t)
	f("a certificate of another authority", "127.0.0.1:0", Options{Security: Security{CA: good.CA, Certificate: other.Certificate, Key: other.Key}})
	f("a key as authority", "127.0.0.1:0", Options{Security: Security{CA: good.Key, Certificate: good.Certificate, Key: good.Key}})
	if _, err := Listen("127.0.0.1:0", Options{Security: good}); vectord.KindOf(err) != vectord.KindInvalid {
		t.Errorf("no cluster: %v", err)
	}
	n := listen(t, Options{Advertise: "node-1.example:7000"})
	if got := n.Addr().String(); got != "node-1.example:7000" {
		t.Errorf("advertised: %s", got)
	}
}

// TestInsecure: plaintext works on loopback, and the two sides must agree on it.
func TestInsecure(t *testing.T) {
	plain := Security{Insecure: true}
	server := echoes(listen(t, Options{Security: plain}))
	secured := echoes(listen(t, Options{}))
	if _, err := listen(t, Options{Security: plain}).Call(t.Context(), server.Addr().String(), methodEcho, pattern(1<<20)); err != nil {
		t.Errorf("plaintext: %v", err)
	}
	_, err := listen(t, Options{Security: plain}).Call(t.Context(), secured.Addr().String(), methodEcho, nil)
	check(t, "plaintext to TLS", err, ErrUnreachable, vectord.KindOverloaded)
	_, err = secured.Call(t.Context(), server.Addr().String(), methodEcho, nil)
	check(t, "TLS to plaintext", err, ErrUnreachable, vectord.KindOverloaded)
}

// TestRotation: certificates that change are used for further connections, and unsound ones are not.
func TestRotation(t *testing.T) {
	old, fresh := files(t), files(t)
	network := &faulty{}
	server := echoes(listen(t, Options{Security: old}))
	caller := listen(t, Options{Security: old, Dial: network.dial})
	call := func() error {
		network.cut()
		_, err := caller.Call(t.Context(), server.Addr().String(), methodEcho, nil)
		if errors.Is(err, ErrUnknown) { // the cut had not been noticed
			_, err = caller.Call(t.Context(), server.Addr().String(), methodEcho, nil)
		}
		return err
	}
	rotation := 1
	replace := func(what Security) {
		t.Helper()
		for from, to := range map[string]string{what.CA: old.CA, what.Certificate: old.Certificate, what.Key: old.Key} {
			data, err := os.ReadFile(from)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(to, data, 0o600); err != nil {
				t.Fatal(err)
			}
			later := time.Now().Add(time.Duration(rotation) * time.Minute) // than any before
			if err := os.Chtimes(to, later, later); err != nil {
				t.Fatal(err)
			}
		}
		rotation++
		for _, n := range []*Transport{server, caller} {
			n.keys.mu.Lock()
			n.keys.checked = time.Time{} // as if a second had passed
			n.keys.mu.Unlock()
		}
	}
	if err := call(); err != nil {
		t.Fatal(err)
	}
	before, _ := caller.keys.current()
	replace(Security{CA: fresh.CA, Certificate: fresh.Certificate, Key: files(t).Key})
	if err := call(); err != nil {
		t.Errorf("with files that do not fit: %v", err)
	}
	if now, _ := caller.keys.current(); now != before {
		t.Error("files that do not fit are in use")
	}
	replace(fresh)
	if err := call(); err != nil {
		t.Errorf("with fresh certificates: %v", err)
	}
	if now, _ := caller.keys.current(); now == before {
		t.Error("fresh certificates are not in use")
	}
	third := echoes(listen(t, Options{Security: fresh}))
	if _, err := caller.Call(t.Context(), third.Addr().String(), methodEcho, nil); err != nil {
		t.Errorf("a node that began with the fresh certificates: %v", err)
	}
	if err := os.Remove(old.CA); err != nil {
		t.Fatal(err)
	}
	caller.keys.mu.Lock()
	caller.keys.checked = time.Time{}
	caller.keys.mu.Unlock()
	if err := call(); err != nil {
		t.Errorf("with a file missing: %v", err)
	}
}

func TestCertificates(t *testing.T) {
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	if err := CreateAuthority(in("ca.pem"), in("ca-key.pem"), 24*time.Hour); err != nil {
		t.Fatal(err)
	}
	if err := CreateCertificate(in("ca.pem"), in("ca-key.pem"), in("node.pem"), in("node-key.pem"), "node 1", 0); err != nil {
		t.Fatal(err)
	}
	for name, mode := range map[string]fs.FileMode{"ca-key.pem": 0o600, "node-key.pem": 0o600} {
		if info, err := os.Stat(in(name)); err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s: %v, %v", name, info.Mode(), err)
		}
	}
	der, err := readPEM(in("node.pem"), pemCertificate)
	if err != nil {
		t.Fatal(err)
	}
	node, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	ca, err := readAuthority(in("ca.pem"), in("ca-key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	if node.Subject.CommonName != "node 1" || !node.NotAfter.Equal(ca.certificate.NotAfter) || node.IsCA {
		t.Errorf("the node's certificate is %q, valid until %s, CA %t", node.Subject.CommonName, node.NotAfter, node.IsCA)
	}

	contents := func() (all string) {
		entries, _ := os.ReadDir(dir)
		for _, e := range entries {
			data, _ := os.ReadFile(in(e.Name()))
			all += e.Name() + string(data)
		}
		return all
	}
	before := contents()
	f := func(what string, want vectord.Kind, err error) {
		t.Helper()
		if err == nil || vectord.KindOf(err) != want {
			t.Errorf("%s: %v (%s)", what, err, vectord.KindOf(err))
		}
		if contents() != before {
			t.Fatalf("%s: the files have changed", what)
		}
	}
	f("authority again", vectord.KindExists, CreateAuthority(in("ca.pem"), in("ca-key.pem"), 0))
	f("authority with a new key", vectord.KindExists, CreateAuthority(in("ca.pem"), in("new-key.pem"), 0))
	f("authority with a new certificate", vectord.KindExists, CreateAuthority(in("new.pem"), in("ca-key.pem"), 0))
	f("node again", vectord.KindExists, CreateCertificate(in("ca.pem"), in("ca-key.pem"), in("node.pem"), in("node-key.pem"), "x", 0))
	f("a node as authority", vectord.KindInvalid, CreateCertificate(in("node.pem"), in("node-key.pem"), in("x.pem"), in("x-key.pem"), "x", 0))
	f("another's key", vectord.KindInvalid, CreateCertificate(in("ca.pem"), in("node-key.pem"), in("x.pem"), in("x-key.pem"), "x", 0))
	f("a key as certificate", vectord.KindInvalid, CreateCertificate(in("ca-key.pem"), in("ca-key.pem"), in("x.pem"), in("x-key.pem"), "x", 0))
	f("a validity below 0", vectord.KindInvalid, CreateAuthority(in("x.pem"), in("x-key.pem"), -1))
	f("no authority", vectord.KindInternal, CreateCertificate(in("none.pem"), in("ca-key.pem"), in("x.pem"), in("x-key.pem"), "x", 0))
	f("no directory", vectord.KindInternal, CreateAuthority(in("none/x.pem"), in("x-key.pem"), 0))
}

// TestHelloRefused: what is said before the connection is of any use.
func TestHelloRefused(t *testing.T) {
	security := files(t)
	server := echoes(listen(t, Options{Security: security}))
	caller := listen(t, Options{Security: security, Cluster: "staging"})
	_, err := caller.Call(t.Context(), server.Addr().String(), methodEcho, nil)
	check(t, "another cluster", err, ErrUnreachable, vectord.KindConflict)
	if err == nil || !strings.Contains(err.Error(), `cluster "test" and not to "staging"`) {
		t.Errorf("another cluster is told: %v", err)
	}

	member := listen(t, Options{Security: security})
	f := func(what string, first []byte, want vectord.Kind) {
		t.Helper()
		raw, err := net.Dial("tcp", server.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer raw.Close()
		conn := member.keys.client(raw)
		conn.SetDeadline(time.Now().Add(patience))
		if _, err := conn.Write(first); err != nil {
			t.Fatal(err)
		}
		err = readAnswer(conn)
		var refusal *vectord.Error
		if refused := errors.As(err, &refusal); refused && refusal.Kind != want || !refused && want != vectord.KindInternal {
			t.Errorf("%s: %v, want %s", what, err, want)
		}
		mustEnd(t, conn)
	}
	good := hello{version: version, kind: kindSmall, cluster: "test", from: "x:1"}
	with := func(change func(*hello)) []byte {
		h := good
		change(&h)
		return h.append(nil)
	}
	f("another version", with(func(h *hello) { h.version = 2 }), vectord.KindUnsupported)
	f("another kind", with(func(h *hello) { h.kind = 9 }), vectord.KindUnsupported)
	f("no kind", with(func(h *hello) { h.kind = 0 }), vectord.KindUnsupported)
	f("nobody", with(func(h *hello) { h.from = "" }), vectord.KindInvalid)
	f("a group that is not there", with(func(h *hello) { h.kind, h.group = kindRaft, 5 }), vectord.KindNotFound)
	f("HTTP", []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"), vectord.KindInternal)
}

// TestPlaintextRefused: whoever does not speak TLS gets nothing but its end.
func TestPlaintextRefused(t *testing.T) {
	server := echoes(listen(t, Options{}))
	conn, err := net.Dial("tcp", server.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	h := hello{version: version, kind: kindSmall, cluster: "test", from: "x:1"}
	if _, err := conn.Write(append(h.append(nil), make([]byte, 100)...)); err != nil {
		t.Fatal(err)
	}
	conn.SetReadDeadline(time.Now().Add(patience))
	answer, err := io.ReadAll(conn)
	if n, ok := err.(net.Error); ok && n.Timeout() {
		t.Error("the connection goes on")
	}
	if len(answer) > 0 && answer[0] != 21 { // an alert of TLS
		t.Errorf("answered by % x", answer)
	}
}

// TestSlowHandshakes: connections that say nothing, or too little, are ended, and do not keep nodes out.
func TestSlowHandshakes(t *testing.T) {
	p := newPair(t, Options{})
	member := dialRaw(t, p.caller, p.server, hello{kind: kindSmall}) // before it is crowded
	var slow []net.Conn
	for i := range 2 * handshakesMax {
		conn, err := net.Dial("tcp", p.address())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if i%2 == 0 {
			conn.Write([]byte{22, 3, 1, 2, 0, 1}) // the begin of a ClientHello
		}
		slow = append(slow, conn)
	}
	start := time.Now()
	for {
		if _, err := p.call(t.Context(), methodEcho, nil); err == nil {
			break
		} else if !errors.Is(err, ErrUnreachable) || time.Since(start) > patience {
			t.Fatalf("a node after %s: %v", time.Since(start), err)
		}
	}
	t.Logf("a node came in after %s", time.Since(start))
	for _, conn := range slow {
		mustEnd(t, conn)
	}
	t.Logf("the slow ones are gone after %s", time.Since(start))
	until(t, "one place is taken, for the next connection", func() bool { return len(p.server.places) == 1 })
	if _, err := member.Write(appendHead(nil, 0, framePing, 0, 0)); err != nil {
		t.Errorf("a connection from before: %v", err)
	}
	if f, err := newFrames(member).next(); err != nil || f.kind != framePong {
		t.Errorf("a connection from before: %v, %v", f, err)
	}
}

// TestSilentHello: who is of the cluster has no more time than others for its hello.
func TestSilentHello(t *testing.T) {
	p := newPair(t, Options{})
	raw, err := net.Dial("tcp", p.address())
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	conn := p.caller.keys.client(raw)
	h := hello{version: version, kind: kindSmall, cluster: "test", from: "x:1"}.append(nil)
	if _, err := conn.Write(h[:10]); err != nil {
		t.Fatal(err)
	}
	mustEnd(t, conn)
}

// TestFrameBounds: a head that is unsound is refused by itself. Nothing is set aside, or waited, for what it says.
func TestFrameBounds(t *testing.T) {
	f := func(length int, kind, flags byte, want string) {
		t.Helper()
		_, err := newFrames(bytes.NewReader(appendHead(nil, length, kind, flags, 1))).next()
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("a head of %d bytes, type %d, flags %d: %v", length, kind, flags, err)
		}
	}
	f(payloadBytesMax+1, frameRequest, 0, "at most")
	f(1<<32-1, frameChunk, 0, "at most")
	f(payloadBytesMax, frameChunk, 0, "EOF")
	f(0, 0, 0, "type 0")
	f(0, framePong+1, 0, "type 10")
	f(0, frameChunk, 2, "flags")
	f(0, framePing, flagMore, "continued")
}

// TestUnsoundFrames: whoever sends an unsound frame is cut off, and others are not.
func TestUnsoundFrames(t *testing.T) {
	p := newPair(t, Options{})
	f := func(what string, frames ...[]byte) {
		t.Helper()
		conn := dialRaw(t, p.caller, p.server, hello{kind: kindLarge})
		for _, b := range frames {
			if _, err := conn.Write(b); err != nil {
				break // it is cut off already
			}
		}
		mustEnd(t, conn)
	}
	request := func(id uint64, flags byte, length uint32, begin string) []byte {
		b := appendHead(nil, requestHeadBytes+len(begin), frameRequest, flags, id)
		b = append(b, methodBlock)
		b = binary.BigEndian.AppendUint64(b, 0)
		return append(binary.BigEndian.AppendUint32(b, length), begin...)
	}
	chunk := func(id uint64, flags byte, text string) []byte {
		return append(appendHead(nil, len(text), frameChunk, flags, id), text...)
	}
	f("a long frame", appendHead(nil, payloadBytesMax+1, frameRequest, 0, 1))
	f("the longest frame", appendHead(nil, 1<<32-1, frameChunk, 0, 1))
	f("no type", appendHead(nil, 0, 0, 0, 1))
	f("a type that is none", appendHead(nil, 0, framePong+1, 0, 1))
	f("flags", appendHead(nil, 0, frameCancel, 2, 1))
	f("a cancel that goes on", appendHead(nil, 0, frameCancel, flagMore, 1))
	f("a reply", append(appendHead(nil, 4, frameReply, 0, 1), 0, 0, 0, 0))
	f("a short request", append(appendHead(nil, 3, frameRequest, 0, 1), 1, 2, 3))
	f("a request of less than it says", request(1, 0, 5, "four"))
	f("a request of more than it says", request(1, 0, 3, "four"))
	f("a request that says it goes on", request(1, flagMore, 4, "four"))
	f("an id twice", request(1, 0, 4, "four"), request(1, 0, 4, "four"))
	f("an id twice, before the end", request(1, flagMore, 8, "four"), request(1, flagMore, 8, "four"))
	f("a chunk too many", request(1, 0, 4, "four"), chunk(1, 0, "more"))
	f("a chunk too long", request(1, flagMore, 6, "four"), chunk(1, 0, "more"))
	f("a chunk of nothing", request(1, flagMore, 6, "four"), chunk(1, flagMore, ""))
	waitZero(t, p.server)
	if _, err := p.call(t.Context(), methodEcho, pattern(100)); err != nil {
		t.Errorf("others: %v", err)
	}
}
