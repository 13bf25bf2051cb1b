package main

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"
)

// certificateCheckEvery bounds how often handshakes look whether the certificate's files have changed.
const certificateCheckEvery = time.Second

// certificate is a TLS certificate that follows its files: after they are replaced, as by a renewal, new connections get
// the new one. While the files do not fit together the old one stays in use. It is safe for concurrent use.
type certificate struct {
	certFile, keyFile string
	logger            *slog.Logger

	mu      sync.Mutex // guards what follows
	current *tls.Certificate
	stamp   fileStamp // of the files when they were last read, in vain or not
	checked time.Time
}

// fileStamp tells versions of the two files apart.
type fileStamp struct {
	certTime, keyTime time.Time
	certSize, keySize int64
}

// loadCertificate reads a certificate and its key from PEM files.
func loadCertificate(certFile, keyFile string, logger *slog.Logger) (*certificate, error) {
	c := &certificate{certFile: certFile, keyFile: keyFile, logger: logger, checked: time.Now()}
	var err error
	if c.stamp, err = c.readStamp(); err != nil {
		return nil, fmt.Errorf("TLS certificate: %w", err)
	}
	if err := c.read(); err != nil {
		return nil, err
	}
	return c, nil
}

// config returns a server's configuration with this certificate.
func (c *certificate) config() *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}, GetCertificate: c.get}
}

func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Since(c.checked) < certificateCheckEvery {
		return c.current, nil
	}
	c.checked = time.Now()
	stamp, err := c.readStamp()
	switch {
	case err == nil && stamp == c.stamp:
		return c.current, nil
	case err == nil:
		c.stamp = stamp // before the files are read: a change in between is seen by the next check
		err = c.read()
	}
	if err != nil {
		c.logger.Warn("the TLS certificate stays as it is, its files cannot be used", "error", err)
	} else {
		c.logger.Info("the TLS certificate was read again", "file", c.certFile)
	}
	return c.current, nil
}

func (c *certificate) read() error {
	pair, err := tls.LoadX509KeyPair(c.certFile, c.keyFile)
	if err != nil {
		return fmt.Errorf("TLS certificate %s with key %s: %w", c.certFile, c.keyFile, err)
	}
	c.current = &pair
	return nil
}

func (c *certificate) readStamp() (s fileStamp, err error) {
	cert, err := os.Stat(c.certFile)
	if err != nil {
		return s, err
	}
	key, err := os.Stat(c.keyFile)
	if err != nil {
		return s, err
	}
	return fileStamp{cert.ModTime(), key.ModTime(), cert.Size(), key.Size()}, nil
}
