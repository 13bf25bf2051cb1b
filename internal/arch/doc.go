// Package arch holds the rules of what may import what in this module, as a test: see docs/ARCHITECTURE.md.
package arch
