// Prints fnv1a.tsv: what Sarama's own hash partitioner does with each key of keys.txt.
//
//	go mod init vectors && go get github.com/IBM/sarama@v1.61.1
//	go run make_fnv1a.go < keys.txt > fnv1a.tsv
package main

import (
	"bufio"
	"encoding/hex"
	"fmt"
	"hash/fnv"
	"os"
	"strings"

	"github.com/IBM/sarama"
)

var counts = []int32{1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 16, 24, 31, 32, 33, 48, 60, 63, 64, 100, 1000}

func main() {
	fmt.Println("# Made by make_fnv1a.go with Go's hash/fnv and github.com/IBM/sarama v1.61.1:")
	fmt.Println("# NewHashPartitioner(topic).Partition(message, count) for each key of keys.txt.")
	fmt.Println("# Columns: the key in hex, its hash as a signed number, its partition for each")
	fmt.Println("# of the counts in the next line.")
	fmt.Print("counts\t-")
	for _, count := range counts {
		fmt.Printf("\t%d", count)
	}
	fmt.Println()
	partitioner := sarama.NewHashPartitioner("topic")
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if strings.HasPrefix(lines.Text(), "#") {
			continue
		}
		key, err := hex.DecodeString(lines.Text())
		if err != nil {
			panic(err)
		}
		hash := fnv.New32a()
		hash.Write(key)
		fmt.Printf("%x\t%d", key, int32(hash.Sum32()))
		message := &sarama.ProducerMessage{Key: sarama.ByteEncoder(key)}
		for _, count := range counts {
			partition, err := partitioner.Partition(message, count)
			if err != nil {
				panic(err)
			}
			fmt.Printf("\t%d", partition)
		}
		fmt.Println()
	}
}
