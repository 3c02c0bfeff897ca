//go:build tools

// Package programs names what tests/cluster/build builds, so that 'go mod tidy' keeps it. A module of its own, since this
// release needs older Kubernetes libraries than the other sidecars.
package programs

import _ "github.com/kubernetes-csi/external-provisioner/v6/cmd/csi-provisioner"
