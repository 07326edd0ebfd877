// Copyright (c) 2026 wcow.snapshotter maintainers
// GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later

// Gcpeer runs containerd's garbage collector once on each of these copies of meta.db.
//
//	gcpeer CONTENT FILE...
//
// CONTENT is a directory for a content store, which stays empty. There is no snapshotter, so only meta.db changes.
package main

import (
	"context"
	"log"
	"os"

	"github.com/containerd/containerd/content/local"
	"github.com/containerd/containerd/metadata"
	bolt "go.etcd.io/bbolt"
)

func main() {
	log.SetFlags(0)
	if len(os.Args) < 3 {
		log.Fatal("usage: gcpeer CONTENT FILE...")
	}
	store, err := local.NewStore(os.Args[1])
	check(err)
	for _, path := range os.Args[2:] {
		file, err := bolt.Open(path, 0600, &bolt.Options{NoSync: true})
		check(err)
		db := metadata.NewDB(file, store, nil)
		check(db.Init(context.Background()))
		_, err = db.GarbageCollect(context.Background())
		check(err)
		check(file.Close())
	}
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
