// Copyright (c) 2026 wcow.snapshotter maintainers
// GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later

// Snapshotbench runs cycles of prepare, commit and remove in containerd's own packages, for tests/benchmarks/bench_go.py.
//
//	snapshotbench DIRECTORY
//
// It makes its stores in DIRECTORY. For each line of its standard input, it runs one cycle over a base snapshot and
// prints the nanoseconds that the cycle took. The line is "storage" for records alone (snapshots/storage), or "native"
// for the native snapshotter (snapshots/native).
package main

import (
	"bufio"
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"time"

	"github.com/containerd/containerd/snapshots"
	"github.com/containerd/containerd/snapshots/native"
	"github.com/containerd/containerd/snapshots/storage"
)

func main() {
	log.SetFlags(0)
	if len(os.Args) != 2 {
		log.Fatal("usage: snapshotbench DIRECTORY")
	}
	ctx := context.Background()
	records := newRecords(ctx, filepath.Join(os.Args[1], "metadata.db"))
	layers := newNative(ctx, filepath.Join(os.Args[1], "native"))
	lines := bufio.NewScanner(os.Stdin)
	for number := 0; lines.Scan(); number++ {
		key, name := fmt.Sprintf("key-%d", number), fmt.Sprintf("name-%d", number)
		start := time.Now()
		switch lines.Text() {
		case "storage":
			cycleRecords(ctx, records, key, name)
		case "native":
			cycleNative(ctx, layers, key, name)
		default:
			log.Fatalf("unknown line %q", lines.Text())
		}
		fmt.Println(time.Since(start).Nanoseconds())
	}
	check(lines.Err())
}

func newRecords(ctx context.Context, path string) *storage.MetaStore {
	records, err := storage.NewMetaStore(path)
	check(err)
	change(ctx, records, func(ctx context.Context) error {
		if _, err := storage.CreateSnapshot(ctx, snapshots.KindActive, "base-key", ""); err != nil {
			return err
		}
		_, err := storage.CommitActive(ctx, "base-key", "base", snapshots.Usage{})
		return err
	})
	return records
}

func newNative(ctx context.Context, root string) snapshots.Snapshotter {
	layers, err := native.NewSnapshotter(root)
	check(err)
	_, err = layers.Prepare(ctx, "base-key", "")
	check(err)
	check(layers.Commit(ctx, "base", "base-key"))
	return layers
}

func cycleRecords(ctx context.Context, records *storage.MetaStore, key, name string) {
	change(ctx, records, func(ctx context.Context) error {
		_, err := storage.CreateSnapshot(ctx, snapshots.KindActive, key, "base")
		return err
	})
	change(ctx, records, func(ctx context.Context) error {
		_, err := storage.CommitActive(ctx, key, name, snapshots.Usage{})
		return err
	})
	change(ctx, records, func(ctx context.Context) error {
		_, _, err := storage.Remove(ctx, name)
		return err
	})
}

func cycleNative(ctx context.Context, layers snapshots.Snapshotter, key, name string) {
	_, err := layers.Prepare(ctx, key, "base")
	check(err)
	check(layers.Commit(ctx, name, key))
	check(layers.Remove(ctx, name))
}

// change does one change in a transaction of its own, as the snapshotters of containerd do.
func change(ctx context.Context, records *storage.MetaStore, work func(context.Context) error) {
	ctx, transaction, err := records.TransactionContext(ctx, true)
	check(err)
	check(work(ctx))
	check(transaction.Commit())
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
