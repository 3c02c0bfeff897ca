//go:build tools

// Package programs names what tests/cluster/build builds, so that 'go mod tidy' keeps it.
package programs

import _ "go.etcd.io/etcd/server/v3"
