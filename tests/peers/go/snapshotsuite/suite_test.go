// Copyright (c) 2026 wcow.snapshotter maintainers
// GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later

// Package snapshotsuite runs containerd's test suite for snapshotters on our proxy snapshotter, as containerd uses it:
// through its metadata, which names the snapshots of a backend, and its client of proxy plugins. Each test has a server
// and a store of its own.
//
// WCOW_PYTHON is the interpreter that runs the server, with the package core on its path.
package snapshotsuite

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"
	"github.com/containerd/containerd/content/local"
	"github.com/containerd/containerd/metadata"
	"github.com/containerd/containerd/pkg/dialer"
	"github.com/containerd/containerd/snapshots"
	"github.com/containerd/containerd/snapshots/proxy"
	"github.com/containerd/containerd/snapshots/testsuite"
	bolt "go.etcd.io/bbolt"
	"google.golang.org/grpc"
)

// How long a busy machine may take to start a server.
const startTimeout = 2 * time.Minute

func TestProxySnapshotter(t *testing.T) {
	testsuite.SnapshotterSuite(t, "wcow", newSnapshotter)
}

func newSnapshotter(ctx context.Context, root string) (snapshots.Snapshotter, func() error, error) {
	address := filepath.Join(filepath.Dir(root), "s")
	server := exec.Command(os.Getenv("WCOW_PYTHON"), "-m", "core.serve.main", "--address", address,
		"--root", filepath.Join(root, "store"), "--layers", "bind")
	server.Stderr = os.Stderr
	if err := server.Start(); err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	connection, err := grpc.DialContext(ctx, dialer.DialAddress(address), grpc.WithBlock(),
		grpc.WithInsecure(), grpc.WithContextDialer(dialer.ContextDialer))
	if err != nil {
		server.Process.Kill()
		return nil, nil, fmt.Errorf("the server does not answer: %w", err)
	}
	content, err := local.NewStore(filepath.Join(root, "content"))
	if err != nil {
		return nil, nil, err
	}
	file, err := bolt.Open(filepath.Join(root, "meta.db"), 0600, &bolt.Options{NoSync: true})
	if err != nil {
		return nil, nil, err
	}
	backend := proxy.NewSnapshotter(snapshotsapi.NewSnapshotsClient(connection), "wcow")
	db := metadata.NewDB(file, content, map[string]snapshots.Snapshotter{"wcow": backend})
	if err := db.Init(ctx); err != nil {
		return nil, nil, err
	}
	stop := func() error {
		file.Close()
		connection.Close()
		if err := server.Process.Signal(syscall.SIGTERM); err != nil {
			return err
		}
		return server.Wait()
	}
	return db.Snapshotter("wcow"), stop, nil
}
