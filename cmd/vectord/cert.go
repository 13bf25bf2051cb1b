package main

import (
	"cmp"
	"fmt"
	"time"

	"github.com/vectord/vectord/replication/transport"
)

type certCmd struct {
	CA   certCACmd   `cmd:"" name:"ca" help:"Make the authority of a cluster."`
	Node certNodeCmd `cmd:"" help:"Make the certificate of a node."`
}

type certCACmd struct {
	Cert     string        `help:"File to write the authority's certificate to; all nodes get it as --cluster-ca." default:"ca.pem" placeholder:"FILE"`
	Key      string        `help:"File to write its key to; it belongs in a safe place and on no node." default:"ca-key.pem" placeholder:"FILE"`
	ValidFor time.Duration `help:"How long it is valid; 0 means 10 years." placeholder:"TIME"`
}

// Help is shown by cert ca --help.
func (certCACmd) Help() string {
	return `Examples:

    vectord cert ca
    vectord cert node n1
    vectord serve --cluster-listen 10.0.0.1:6336 --cluster-ca ca.pem --cluster-cert n1.pem --cluster-key n1-key.pem

A file that is there is not overwritten.`
}

// Run makes the authority.
func (c *certCACmd) Run(s *session) error {
	if err := transport.CreateAuthority(c.Cert, c.Key, c.ValidFor); err != nil {
		return err
	}
	_, err := fmt.Fprintf(s.stdout, "%s is the cluster's authority. Keep %s where no node is: whoever has it can make nodes.\n", c.Cert, c.Key)
	return err
}

type certNodeCmd struct {
	Name     string        `arg:"" help:"Name of the node, for people who look at the certificate."`
	CA       string        `help:"File with the authority's certificate." name:"ca" default:"ca.pem" placeholder:"FILE"`
	CAKey    string        `help:"File with its key." name:"ca-key" default:"ca-key.pem" placeholder:"FILE"`
	Cert     string        `help:"File to write the node's certificate to; NAME.pem unless given." placeholder:"FILE"`
	Key      string        `help:"File to write its key to; NAME-key.pem unless given." placeholder:"FILE"`
	ValidFor time.Duration `help:"How long it is valid; 0 means a year, and no longer than the authority." placeholder:"TIME"`
}

// Run makes the certificate.
func (c *certNodeCmd) Run(s *session) error {
	cert, key := cmp.Or(c.Cert, c.Name+".pem"), cmp.Or(c.Key, c.Name+"-key.pem")
	if err := transport.CreateCertificate(c.CA, c.CAKey, cert, key, c.Name, c.ValidFor); err != nil {
		return err
	}
	_, err := fmt.Fprintf(s.stdout, "%s and %s are for node %s\n", cert, key, c.Name)
	return err
}
