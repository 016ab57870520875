// Another implementation of logs: Go's own (golang.org/x/mod/sumdb/note and .../tlog), which the checksum database of Go modules
// runs on. Debian has it as golang-golang-x-mod-dev; transparency/tests/peer.rs builds and runs this.
//
//	peer follow URL LOG-VKEY WITNESS-VKEY [OLD-SIZE OLD-ROOT]
//	    reads the log at URL: signatures, every tile against the root, every entry against its tile, consistency with an
//	    older tree; prints "size root" and a line "index leaf-hash" for each entry
//	peer prove FILE LOG-VKEY WITNESS-VKEY LEAF-HASH
//	    checks a tlog-proof
//	peer log WITNESS-URL LOG-SKEY LOG-VKEY WITNESS-VKEY ORIGIN
//	    is a log that has its checkpoints cosigned as it grows, and then tries to have a fork cosigned
package main

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// height of tiles (C2SP tlog-tiles): 2^8 hashes.
const height = 8

func main() {
	args := os.Args[1:]
	switch {
	case len(args) >= 4 && args[0] == "follow":
		follow(args[1], known(args[2], args[3]), args[4:])
	case len(args) == 5 && args[0] == "prove":
		prove(args[1], known(args[2], args[3]), args[4])
	case len(args) == 6 && args[0] == "log":
		log(args[1], args[2], known(args[3], args[4]), args[5])
	default:
		fail("wrong arguments %q", args)
	}
}

func fail(format string, arguments ...interface{}) {
	fmt.Fprintf(os.Stderr, format+"\n", arguments...)
	os.Exit(1)
}

func must(err error, what string) {
	if err != nil {
		fail("%s: %v", what, err)
	}
}

// cosigner checks cosignatures with Ed25519 (C2SP tlog-cosignature), which x/mod does not know.
type cosigner struct {
	name string
	hash uint32
	key  ed25519.PublicKey
}

func (c cosigner) Name() string    { return c.name }
func (c cosigner) KeyHash() uint32 { return c.hash }
func (c cosigner) Verify(text, sig []byte) bool {
	if len(sig) != 8+ed25519.SignatureSize {
		return false
	}
	time := binary.BigEndian.Uint64(sig)
	message := fmt.Sprintf("cosignature/v1\ntime %d\n%s", time, text)
	return ed25519.Verify(c.key, []byte(message), sig[8:])
}

// known is the log's verifier and that of its witness; a note must be signed by both.
func known(log, witness string) []note.Verifier {
	verifier, err := note.NewVerifier(log)
	must(err, "the log's key")
	parts := strings.SplitN(witness, "+", 3)
	hash, err := strconv.ParseUint(parts[1], 16, 32)
	must(err, "the witness's key")
	key, err := base64.StdEncoding.DecodeString(parts[2])
	must(err, "the witness's key")
	if key[0] != 4 || len(key) != 1+ed25519.PublicKeySize {
		fail("the witness's key has the type %d", key[0])
	}
	return []note.Verifier{verifier, cosigner{parts[0], uint32(hash), key[1:]}}
}

// open checks a checkpoint's signatures and reads it.
func open(text []byte, verifiers []note.Verifier) (string, tlog.Tree) {
	opened, err := note.Open(text, note.VerifierList(verifiers...))
	must(err, "the checkpoint")
	if len(opened.Sigs) != len(verifiers) {
		fail("the checkpoint is signed by %d of %d", len(opened.Sigs), len(verifiers))
	}
	lines := strings.Split(opened.Text, "\n")
	size, err := strconv.ParseInt(lines[1], 10, 64)
	must(err, "the size")
	root, err := tlog.ParseHash(lines[2])
	must(err, "the root")
	return lines[0], tlog.Tree{N: size, Hash: root}
}

func get(url string) []byte {
	response, err := http.Get(url)
	must(err, url)
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	must(err, url)
	if response.StatusCode != 200 {
		fail("%s: %s", url, response.Status)
	}
	return body
}

// path of a tile or of a bundle of entries: x/mod has the height in it, and tlog-tiles has not.
func path(tile tlog.Tile, row string) string {
	whole := strings.SplitN(tile.Path(), "/", 4)
	return "tile/" + row + "/" + whole[3]
}

// tiles of a log; x/mod checks each against the root.
type tiles struct{ url string }

func (t tiles) Height() int { return height }
func (t tiles) ReadTiles(wanted []tlog.Tile) ([][]byte, error) {
	var data [][]byte
	for _, tile := range wanted {
		data = append(data, get(t.url+"/"+path(tile, strconv.Itoa(tile.L))))
	}
	return data, nil
}
func (t tiles) SaveTiles([]tlog.Tile, [][]byte) {}

func follow(url string, verifiers []note.Verifier, old []string) {
	_, tree := open(get(url+"/checkpoint"), verifiers)
	fmt.Printf("%d %s\n", tree.N, tree.Hash)
	reader := tlog.TileHashReader(tree, tiles{url})
	root, err := tlog.TreeHash(tree.N, reader)
	must(err, "the tree")
	if root != tree.Hash {
		fail("the tiles have the root %s", root)
	}
	for start := int64(0); start < tree.N; start += 1 << height {
		width := tree.N - start
		if width > 1<<height {
			width = 1 << height
		}
		bundle := get(url + "/" + path(tlog.Tile{H: height, N: start >> height, W: int(width)}, "entries"))
		for n := start; n < start+width; n++ {
			length := int(binary.BigEndian.Uint16(bundle))
			entry := bundle[2 : 2+length]
			bundle = bundle[2+length:]
			hashes, err := reader.ReadHashes([]int64{tlog.StoredHashIndex(0, n)})
			must(err, "a leaf")
			if hashes[0] != tlog.RecordHash(entry) {
				fail("entry %d does not hash to its leaf", n)
			}
			fmt.Printf("%d %s\n", n, hex.EncodeToString(hashes[0][:]))
		}
		if len(bundle) != 0 {
			fail("the bundle at %d is too long", start)
		}
	}
	if len(old) == 2 {
		size, err := strconv.ParseInt(old[0], 10, 64)
		must(err, "the old size")
		root, err := tlog.ParseHash(old[1])
		must(err, "the old root")
		proof, err := tlog.ProveTree(tree.N, size, reader)
		must(err, "the consistency proof")
		must(tlog.CheckTree(proof, tree.N, tree.Hash, size, root), "consistency")
	}
}

func prove(file string, verifiers []note.Verifier, leaf string) {
	text, err := os.ReadFile(file)
	must(err, file)
	blank := bytes.Index(text, []byte("\n\n"))
	_, tree := open(text[blank+2:], verifiers)
	lines := strings.Split(string(text[:blank]), "\n")
	if lines[0] != "c2sp.org/tlog-proof@v1" || !strings.HasPrefix(lines[1], "extra ") {
		fail("not a proof of the form that was expected: %q", lines[:2])
	}
	index, err := strconv.ParseInt(strings.TrimPrefix(lines[2], "index "), 10, 64)
	must(err, "the index")
	var proof tlog.RecordProof
	for _, line := range lines[3:] {
		hash, err := tlog.ParseHash(line)
		must(err, "a hash")
		proof = append(proof, hash)
	}
	var hash tlog.Hash
	_, err = hex.Decode(hash[:], []byte(leaf))
	must(err, "the leaf")
	must(tlog.CheckRecord(proof, tree.N, tree.Hash, index, hash), "inclusion")
	fmt.Printf("entry %d of %d\n", index, tree.N)
}

// stored hashes of a log in memory.
type stored []tlog.Hash

func (s stored) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	var hashes []tlog.Hash
	for _, index := range indexes {
		hashes = append(hashes, s[index])
	}
	return hashes, nil
}

func grow(hashes stored, from, to int64, salt string) stored {
	for n := from; n < to; n++ {
		more, err := tlog.StoredHashes(n, []byte(fmt.Sprintf("%s entry %d", salt, n)), hashes)
		must(err, "a record")
		hashes = append(hashes, more...)
	}
	return hashes
}

func log(url, secret string, verifiers []note.Verifier, origin string) {
	signer, err := note.NewSigner(secret)
	must(err, "the log's key")
	submit := func(hashes stored, old, size int64) (int, string, []byte) {
		root, err := tlog.TreeHash(size, hashes)
		must(err, "the root")
		text := fmt.Sprintf("%s\n%d\n%s\n", origin, size, root)
		signed, err := note.Sign(&note.Note{Text: text}, signer)
		must(err, "signing")
		var proof tlog.TreeProof
		if old > 0 && old < size {
			proof, err = tlog.ProveTree(size, old, hashes)
			must(err, "the consistency proof")
		}
		body := fmt.Sprintf("old %d\n", old)
		for _, hash := range proof {
			body += hash.String() + "\n"
		}
		response, err := http.Post(url+"/add-checkpoint", "", strings.NewReader(body+"\n"+string(signed)))
		must(err, "the witness")
		defer response.Body.Close()
		answer, err := io.ReadAll(response.Body)
		must(err, "the witness's answer")
		return response.StatusCode, string(answer), signed
	}
	var hashes stored
	old := int64(0)
	for _, size := range []int64{1, 2, 5, 256, 257, 1000, 70000} {
		hashes = grow(hashes, old, size, "a true")
		status, answer, signed := submit(hashes, old, size)
		if status != 200 {
			fail("from %d to %d: %d %s", old, size, status, answer)
		}
		if named, tree := open(append(signed, answer...), verifiers); named != origin || tree.N != size {
			fail("cosigned is %s %d", named, tree.N)
		}
		fmt.Printf("cosigned %d\n", size)
		old = size
	}
	if status, answer, _ := submit(hashes, 5, 70000); status != 409 || answer != "70000\n" {
		fail("an old size that is over: %d %s", status, answer)
	}
	fork := grow(nil, 0, 70001, "a forked")
	for _, size := range []int64{70000, 70001} {
		if status, answer, _ := submit(fork, old, size); status != 422 {
			fail("a fork of %d: %d %s", size, status, answer)
		}
	}
	fmt.Println("refused the fork")
}
