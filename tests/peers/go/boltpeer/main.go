// Copyright (c) 2026 wcow.snapshotter maintainers
// GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later

// Boltpeer writes databases with bbolt, for the tests of our reader.
//
//	boltpeer random DIRECTORY FIRST COUNT   writes COUNT random databases, each with bbolt's own dump next to it
//	boltpeer dump FILE                      checks a database, and prints it as text
//	boltpeer put FILE BUCKET KEY            adds an empty value to a top-level bucket
//	boltpeer transfer FILE                  commits without a pause until its standard input ends
//
// A dump has one line for each item: the keys from the top, in hexadecimal and separated by slashes, then "B" and the
// sequence of a bucket, or "V" and the value in hexadecimal.
package main

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"log"
	"math/rand"
	"os"
	"path/filepath"
	"strconv"

	bolt "go.etcd.io/bbolt"
)

// Buckets and the money in each of them, for transfer.
const (
	accounts = 64
	money    = 1000
)

func main() {
	log.SetFlags(0)
	if len(os.Args) < 3 {
		log.Fatal("usage: boltpeer random DIRECTORY FIRST COUNT | dump FILE | put FILE BUCKET KEY | transfer FILE")
	}
	switch os.Args[1] {
	case "random":
		first, count := number(os.Args[3]), number(os.Args[4])
		for seed := first; seed < first+count; seed++ {
			path := filepath.Join(os.Args[2], strconv.Itoa(seed))
			writeRandom(path+".db", rand.New(rand.NewSource(int64(seed))))
			out, err := os.Create(path + ".dump")
			check(err)
			dump(path+".db", out)
			check(out.Close())
		}
	case "dump":
		dump(os.Args[2], os.Stdout)
	case "put":
		put(os.Args[2], os.Args[3], os.Args[4])
	case "transfer":
		transfer(os.Args[2])
	default:
		log.Fatalf("unknown command %q", os.Args[1])
	}
}

func number(text string) int {
	value, err := strconv.Atoi(text)
	check(err)
	return value
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func dump(path string, out io.Writer) {
	db, err := bolt.Open(path, 0o600, &bolt.Options{ReadOnly: true})
	check(err)
	defer db.Close()
	buffered := bufio.NewWriter(out)
	check(db.View(func(tx *bolt.Tx) error {
		for err := range tx.Check() {
			check(err)
		}
		return tx.ForEach(func(name []byte, bucket *bolt.Bucket) error {
			return dumpBucket(buffered, fmt.Sprintf("/%x", name), bucket)
		})
	}))
	check(buffered.Flush())
}

func dumpBucket(out io.Writer, path string, bucket *bolt.Bucket) error {
	fmt.Fprintf(out, "%s B %d\n", path, bucket.Sequence())
	return bucket.ForEach(func(key, value []byte) error {
		inner := fmt.Sprintf("%s/%x", path, key)
		if value == nil {
			return dumpBucket(out, inner, bucket.Bucket(key))
		}
		fmt.Fprintf(out, "%s V %x\n", inner, value)
		return nil
	})
}

func put(path, bucket, key string) {
	db, err := bolt.Open(path, 0o600, nil)
	check(err)
	check(db.Update(func(tx *bolt.Tx) error {
		return tx.Bucket([]byte(bucket)).Put([]byte(key), nil)
	}))
	check(db.Close())
}

// writeRandom commits a few transactions. It uses each page size, and values from no bytes up to many pages.
func writeRandom(path string, random *rand.Rand) {
	db, err := bolt.Open(path, 0o600, &bolt.Options{
		PageSize:       1024 << random.Intn(7),
		NoFreelistSync: random.Intn(2) == 0,
		NoSync:         true,
	})
	check(err)
	defer db.Close()
	for range make([]int, 1+random.Intn(6)) {
		check(db.Update(func(tx *bolt.Tx) error {
			for range make([]int, random.Intn(4)) {
				bucket, err := tx.CreateBucketIfNotExists(randomKey(random))
				check(err)
				fill(bucket, random, 0)
			}
			if key, _ := tx.Cursor().First(); key != nil && random.Intn(5) == 0 {
				check(tx.DeleteBucket(key))
			}
			return nil
		}))
	}
}

func fill(bucket *bolt.Bucket, random *rand.Rand, depth int) {
	if random.Intn(3) == 0 {
		check(bucket.SetSequence(random.Uint64()))
	}
	size := random.Intn(8)
	if depth == 0 && random.Intn(8) == 0 {
		size = 300
	}
	for range make([]int, size) {
		key := randomKey(random)
		switch random.Intn(6) {
		case 0:
			if depth < 3 && bucket.Get(key) == nil {
				inner, err := bucket.CreateBucketIfNotExists(key)
				check(err)
				fill(inner, random, depth+1)
			}
		case 1:
			if first, value := bucket.Cursor().First(); value != nil {
				check(bucket.Delete(first))
			}
		default:
			if bucket.Bucket(key) == nil {
				check(bucket.Put(key, randomBytes(random, 0)))
			}
		}
	}
}

func randomKey(random *rand.Rand) []byte {
	if random.Intn(2) == 0 {
		return []byte(strconv.Itoa(random.Intn(50)))
	}
	return randomBytes(random, 1)
}

func randomBytes(random *rand.Rand, least int) []byte {
	limit := 60
	if random.Intn(40) == 0 {
		limit = 10000
	}
	data := make([]byte, least+random.Intn(limit))
	random.Read(data)
	return data
}

// transfer moves money between the buckets of a database. Each commit increments the same counter in all buckets and
// leaves the sum of the money as it was. Growing and shrinking values make bbolt reuse pages all the time.
func transfer(path string) {
	ended := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		close(ended)
	}()
	db, err := bolt.Open(path, 0o600, &bolt.Options{NoSync: true})
	check(err)
	defer db.Close()
	random := rand.New(rand.NewSource(1))
	for counter := uint64(0); ; counter++ {
		check(db.Update(func(tx *bolt.Tx) error {
			for account := uint64(0); account < accounts; account++ {
				bucket, err := tx.CreateBucketIfNotExists(encode(account))
				check(err)
				check(bucket.Put([]byte("counter"), encode(counter)))
				if counter == 0 {
					check(bucket.Put([]byte("money"), encode(money)))
				}
			}
			from, to := tx.Bucket(encode(random.Uint64()%accounts)), tx.Bucket(encode(random.Uint64()%accounts))
			if amount := random.Uint64() % 10; decode(from.Get([]byte("money"))) >= amount {
				check(from.Put([]byte("money"), encode(decode(from.Get([]byte("money")))-amount)))
				check(to.Put([]byte("money"), encode(decode(to.Get([]byte("money")))+amount)))
			}
			return to.Put([]byte("ballast"), make([]byte, random.Intn(20000)))
		}))
		if counter == 0 {
			fmt.Println("ready")
		}
		select {
		case <-ended:
			fmt.Println(counter + 1)
			return
		default:
		}
	}
}

func encode(value uint64) []byte {
	data := make([]byte, 8)
	binary.BigEndian.PutUint64(data, value)
	return data
}

func decode(data []byte) uint64 {
	return binary.BigEndian.Uint64(data)
}
